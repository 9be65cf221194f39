"""What is fast underneath the layers; see README.md."""
