"""What bends the sampling of a class towards a better set: three terms."""
