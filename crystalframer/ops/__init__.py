"""What makes the model fast: implementations of one framed attention layer behind one function."""
