"""From files and objects of other libraries to crystals."""
