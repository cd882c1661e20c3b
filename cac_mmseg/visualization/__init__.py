"""What a model makes of an image: captured context, drawing, pages."""
