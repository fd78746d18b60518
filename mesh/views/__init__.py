"""What people see of the mesh's state: text tables, and the data and the drawing of pictures.

Everything here takes plain documents (the JSON of interface.md) and decides nothing. Only `render` touches files, and
only it and the `*_figure` modules need matplotlib and networkx; nothing imports those before a picture is asked for.
"""
