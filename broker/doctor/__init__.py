"""What `broker doctor` looks at: each part of an installation, asked once, changed in nothing."""
