"""Images that show none of the structures, told by competition with decoys."""
