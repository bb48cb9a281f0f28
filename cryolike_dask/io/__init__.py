"""Files: their names (layout), and safe reading and atomic writing of each kind. No file is ever
unpickled."""
