"""Pictures and pages, and the reader of images and labels."""
