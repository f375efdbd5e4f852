"""What is connected: shown to callers, withdrawn here at once, and then withdrawn at Google."""
