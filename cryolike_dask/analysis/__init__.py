"""Results looked at: opened with what is known of each image, compared, exported, drawn,
reported."""
