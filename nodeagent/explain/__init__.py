"""What the mesh would do with a request, by the code of the data path, without sending anything."""
