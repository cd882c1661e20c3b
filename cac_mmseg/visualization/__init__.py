"""How a model reads an image: captured context, drawing, pages."""
