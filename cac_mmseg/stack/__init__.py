"""What one has to know of mmengine, mmseg and the file system."""
