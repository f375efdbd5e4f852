"""What all pages share: frame and headers, reading of cookies and forms, detection of previews."""
