"""What all pages for people share: their frame and headers, their languages, how forms are read."""
