"""A copy of a compiled model for pictures alone, its visual meshes thinned in place.

The physics keep the published model untouched; pictures are drawn from a copy whose visual meshes have a thousand faces
each, textures included. LIBERO's object scenes have 300,000 faces, and software rendering costs per face.
"""

from __future__ import annotations

import copy
import hashlib
import os
import tempfile
from typing import NamedTuple

import numpy as np
from scipy.spatial import cKDTree

from udvla_ros.sim.gl import mujoco
from udvla_ros.sim.meshes import cache_folder

FACES = 1000  # of a mesh; smaller ones stay as they are
VISUAL = 1  # robosuite's geom group of what is seen; group 0 collides


class Thin(NamedTuple):
    """A mesh as the renderer reads it: ``vertices`` [V, 3], ``faces`` [F, 3], a normal of each face [F, 3], and
    ``texture`` [3 F, 2], a coordinate per corner of a face (none: empty).
    """

    vertices: np.ndarray
    faces: np.ndarray
    normals: np.ndarray
    texture: np.ndarray


def thinned_copy(model: mujoco.MjModel, faces: int = FACES) -> mujoco.MjModel:
    """Return a copy to be rendered: the same bodies, joints and cameras, fewer faces, no multisampling.

    It must not be simulated: what collides is not as it was.
    """
    thin = copy.copy(model)
    thin.vis.quality.offsamples = 0
    meshes = {int(model.geom_dataid[g]) for g in range(model.ngeom) if model.geom_type[g] == mujoco.mjtGeom.mjGEOM_MESH}
    for mesh in meshes:
        if model.mesh_facenum[mesh] > faces:
            _put(thin, mesh, _cached(model, mesh, faces))
    return thin


def _put(model: mujoco.MjModel, mesh: int, thin: Thin) -> None:
    """Write a mesh over the beginning of the larger one that it stands for."""
    for first, count, values, array in (
        (model.mesh_vertadr, model.mesh_vertnum, thin.vertices, model.mesh_vert),
        (model.mesh_normaladr, model.mesh_normalnum, thin.normals, model.mesh_normal),
        (model.mesh_faceadr, model.mesh_facenum, thin.faces, model.mesh_face),
        (model.mesh_texcoordadr, model.mesh_texcoordnum, thin.texture, model.mesh_texcoord),
    ):
        if len(values):
            array[first[mesh] : first[mesh] + len(values)] = values
            count[mesh] = len(values)
    rows = slice(model.mesh_faceadr[mesh], model.mesh_faceadr[mesh] + len(thin.faces))
    model.mesh_facenormal[rows] = np.arange(len(thin.faces))[:, None]
    if len(thin.texture):
        model.mesh_facetexcoord[rows] = np.arange(len(thin.texture)).reshape(-1, 3)


def _cached(model: mujoco.MjModel, mesh: int, faces: int) -> Thin:
    vertices, triangles, texture = _read(model, mesh)
    digest = hashlib.sha256(b"".join(a.tobytes() for a in (vertices, triangles, texture)))
    file = cache_folder() / f"textured-{digest.hexdigest()[:20]}-{faces}.npz"
    if file.is_file():
        with np.load(file, allow_pickle=False) as stored:
            return Thin(*(stored[name] for name in Thin._fields))
    made = thin(vertices, triangles, texture, faces)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=file.parent, suffix=".tmp", delete=False) as handle:
            np.savez(handle, **made._asdict())
        os.replace(handle.name, file)  # parallel workers may thin the same mesh
    except OSError:
        pass  # the cache only saves time
    return made


def _read(model: mujoco.MjModel, mesh: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return vertices [V, 3], faces [F, 3] and the texture coordinates of each corner [F, 3, 2] (none: [0, 3, 2])."""
    rows = slice(model.mesh_faceadr[mesh], model.mesh_faceadr[mesh] + model.mesh_facenum[mesh])
    first = model.mesh_vertadr[mesh]
    vertices = model.mesh_vert[first : first + model.mesh_vertnum[mesh]]
    if model.mesh_texcoordadr[mesh] < 0:
        return vertices, model.mesh_face[rows], np.empty((0, 3, 2), np.float32)
    corners = model.mesh_texcoord[model.mesh_texcoordadr[mesh] + model.mesh_facetexcoord[rows]]
    return vertices, model.mesh_face[rows], corners


def thin(vertices: np.ndarray, faces: np.ndarray, texture: np.ndarray, count: int) -> Thin:
    """Return the mesh with about ``count`` flat faces; the texture is that of the nearest old face.

    Args:
        vertices: float [V, 3]; ``faces``: int [F, 3]; ``texture``: float [F, 3, 2], or empty.
        count: wanted faces, fewer than there are.
    """
    import fast_simplification

    welded, names = np.unique(vertices.round(6), axis=0, return_inverse=True)  # seams of the texture cut the mesh
    points, triangles = fast_simplification.simplify(
        welded.astype(np.float32), names.reshape(-1)[faces].astype(np.int32), target_count=count
    )
    old, new = vertices[faces].astype(float), points[triangles].astype(float)  # [F, 3, 3]
    tree = cKDTree(old.mean(1))
    normals = np.cross(new[:, 1] - new[:, 0], new[:, 2] - new[:, 0])
    normals /= np.linalg.norm(normals, axis=1, keepdims=True) + 1e-12
    coordinates = np.empty((0, 2), np.float32)
    if len(texture):
        inwards = 0.9 * new + 0.1 * new.mean(1, keepdims=True)  # a corner on a seam takes its own face's side
        nearest = tree.query(inwards.reshape(-1, 3))[1]
        weights = _barycentric(inwards.reshape(-1, 3), old[nearest])
        coordinates = np.einsum("nc,ncd->nd", weights, texture[nearest]).astype(np.float32)
    return Thin(points.astype(np.float32), triangles.astype(np.int32), normals.astype(np.float32), coordinates)


def _barycentric(points: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """Return weights [N, 3] of the corners [N, 3, 3] at the points [N, 3], moved into the face."""
    u, v, w = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0], points - corners[:, 0]
    uu, uv, vv = (u * u).sum(1), (u * v).sum(1), (v * v).sum(1)
    wu, wv = (w * u).sum(1), (w * v).sum(1)
    area = uu * vv - uv * uv + 1e-18
    b, c = (vv * wu - uv * wv) / area, (uu * wv - uv * wu) / area
    weights = np.clip(np.stack([1 - b - c, b, c], 1), 0.0, 1.0)
    return weights / weights.sum(1, keepdims=True)
