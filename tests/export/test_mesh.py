import numpy as np

from sds3d.export.mesh import vertex_normals, without_unused_vertices


def test_normals_point_out_of_a_cube_corner_by_area():
    vertices = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]])
    faces = np.array([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]])
    normals = vertex_normals(vertices, faces)
    assert np.allclose(normals[0], -(3**-0.5) * np.ones(3))
    assert np.allclose(np.linalg.norm(normals, axis=-1), 1)
    assert (normals @ (vertices.mean(axis=0) - vertices).T < 0).diagonal().all()


def test_vertices_without_area_get_a_unit_normal():
    vertices = np.array([[0.0, 0, 0], [1, 0, 0], [2, 0, 0], [9, 9, 9]])
    assert np.allclose(vertex_normals(vertices, np.array([[0, 1, 2]])), [0, 0, 1])


def test_unused_vertices_go_and_the_triangles_stay():
    vertices = np.arange(15.0).reshape(5, 3)
    faces = np.array([[4, 1, 3]])
    fewer, again = without_unused_vertices(vertices, faces)
    assert len(fewer) == 3
    assert np.array_equal(fewer[again], vertices[faces])
