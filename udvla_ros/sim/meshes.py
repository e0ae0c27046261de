"""Visual meshes thinned to a few hundred faces.

Software rendering costs per face, hardly per pixel: the vendor meshes have 300,000 faces and at the size a
policy looks at, a few hundred each look the same. Thinned meshes are cached under ``~/.cache/udvla_ros``.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path

import numpy as np

Mesh = tuple[np.ndarray, np.ndarray]  # vertices float32 [V, 3], faces int32 [F, 3]


def cache_folder() -> Path:
    """Return the folder for thinned meshes (``$XDG_CACHE_HOME/udvla_ros/meshes``)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "udvla_ros" / "meshes"


def thin(path: Path, faces: int) -> Mesh:
    """Return the mesh at ``path`` with at most about ``faces`` triangles, in the file's own units."""
    import trimesh

    mesh = trimesh.load_mesh(path, process=True)
    mesh.merge_vertices(merge_norm=True, merge_tex=True)
    if len(mesh.faces) > faces:
        mesh = mesh.simplify_quadric_decimation(face_count=faces)
    return np.asarray(mesh.vertices, np.float32), np.asarray(mesh.faces, np.int32)


def thinned(path: Path, faces: int) -> Mesh:
    """Return :func:`thin` through the cache; a cache that cannot be written is not an error."""
    stat = path.stat()
    what = f"{path.resolve()}|{stat.st_size}|{stat.st_mtime_ns}|{faces}"
    key = hashlib.sha256(what.encode()).hexdigest()[:20]
    cached = cache_folder() / f"{path.stem}-{key}.npz"
    if cached.is_file():
        with np.load(cached, allow_pickle=False) as stored:
            return stored["vertices"], stored["faces"]
    vertices, triangles = thin(path, faces)
    try:
        cached.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=cached.parent, suffix=".tmp", delete=False) as handle:
            np.savez(handle, vertices=vertices, faces=triangles)
        os.replace(handle.name, cached)  # atomic: parallel workers may thin the same mesh
    except OSError:
        pass
    return vertices, triangles
