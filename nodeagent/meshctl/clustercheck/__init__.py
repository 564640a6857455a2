"""`meshctl check --cluster` looks whether a cluster can run the mesh, and whether the mesh is well.

Facts are gathered at the edge (`reading`, `probing`); each check is a pure function from facts to a result.
"""
