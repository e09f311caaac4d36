"""Values and rules of the field, without I/O."""
