"""Neighbour search and edges of batches in Numba.

Images are found by descending through the lattice vectors: those of a that keep a pair within reach, for each those of
b, for each those of c. So a skewed or flat cell costs no more than the edges it has. In large cells the key atoms are
taken from bins around the query atom, which makes the search linear in atoms.

Plain loops over numbers: they compile in seconds, array expressions take ten times as long.
"""

from __future__ import annotations

import math

import numpy as np

from crystalframer.compiled import kernel

SPHERE = 4.0 / 3.0 * math.pi
"""Volume of the sphere of radius 1."""


@kernel()
def _into_own_axes(lattice, rows, axes, heights):
    """`axes` along c, then b, then a; the lattice vectors in them (c = (x, 0, 0), b = (x, y, 0)); cell heights."""
    for axis in range(3):
        vector = 2 - axis
        for d in range(3):
            axes[axis, d] = lattice[vector, d]
        for earlier in range(axis):
            along = 0.0
            for d in range(3):
                along += axes[axis, d] * axes[earlier, d]
            for d in range(3):
                axes[axis, d] -= along * axes[earlier, d]
        length = math.sqrt(axes[axis, 0] ** 2 + axes[axis, 1] ** 2 + axes[axis, 2] ** 2)
        for d in range(3):
            axes[axis, d] /= length
    for vector in range(3):
        for axis in range(3):
            rows[vector, axis] = 0.0
            for d in range(3):
                if axis <= 2 - vector:
                    rows[vector, axis] += lattice[vector, d] * axes[axis, d]
    volume = rows[0, 2] * rows[1, 1] * rows[2, 0]
    for vector in range(3):
        u, v = (vector + 1) % 3, (vector + 2) % 3
        x = rows[u, 1] * rows[v, 2] - rows[u, 2] * rows[v, 1]
        y = rows[u, 2] * rows[v, 0] - rows[u, 0] * rows[v, 2]
        z = rows[u, 0] * rows[v, 1] - rows[u, 1] * rows[v, 0]
        heights[vector] = volume / math.sqrt(x * x + y * y + z * z)


@kernel()
def _wrap(first, n_atoms, positions, rows, axes, frac, shift, wrapped):
    """Fractional coordinates in [0, 1], the cells that the atoms came from, and positions in the axes of the cell."""
    for i in range(n_atoms):
        for axis in range(3):
            wrapped[i, axis] = 0.0
            for d in range(3):
                wrapped[i, axis] += positions[first + i, d] * axes[axis, d]
        frac[i, 0] = wrapped[i, 2] / rows[0, 2]
        frac[i, 1] = (wrapped[i, 1] - frac[i, 0] * rows[0, 1]) / rows[1, 1]
        frac[i, 2] = (wrapped[i, 0] - frac[i, 0] * rows[0, 0] - frac[i, 1] * rows[1, 0]) / rows[2, 0]
        for vector in range(3):
            shift[i, vector] = math.floor(frac[i, vector])
            frac[i, vector] -= shift[i, vector]
            for axis in range(3):
                wrapped[i, axis] -= shift[i, vector] * rows[vector, axis]


@kernel()
def _count_bins(n_atoms, heights, radius, n_bins):
    """Choose the number of bins along each lattice vector: each half a radius high, in all not many more than atoms."""
    for vector in range(3):
        n_bins[vector] = min(max(1, math.floor(2.0 * heights[vector] / radius)), n_atoms)
    while n_bins[0] * n_bins[1] * n_bins[2] > 2 * n_atoms:
        widest = 0
        for vector in range(1, 3):
            if n_bins[vector] > n_bins[widest]:
                widest = vector
        n_bins[widest] = (n_bins[widest] + 1) // 2


@kernel()
def _fill_bins(n_atoms, frac, n_bins, first_member, members):
    """Atoms sorted by bin, and where each bin starts among them."""
    bins = np.empty(n_atoms, np.int64)
    for n in range(len(first_member)):
        first_member[n] = 0
    for i in range(n_atoms):
        bins[i] = 0
        for vector in range(3):
            bins[i] = bins[i] * n_bins[vector] + min(math.floor(frac[i, vector] * n_bins[vector]), n_bins[vector] - 1)
        first_member[bins[i] + 1] += 1
    for n in range(1, len(first_member)):
        first_member[n] += first_member[n - 1]
    for i in range(n_atoms):  # moves each start to the end of its bin, which is the start of the next
        members[first_member[bins[i]]] = i
        first_member[bins[i]] += 1
    for n in range(len(first_member) - 1, 0, -1):
        first_member[n] = first_member[n - 1]
    first_member[0] = 0


@kernel()
def _component(d, query, key, a, b, c, positions, lattice):
    """One component of p_j(n) - p_i. For the images ±n of one atom, the results are exactly opposite."""
    return positions[key, d] - positions[query, d] + (a * lattice[0, d] + b * lattice[1, d] + c * lattice[2, d])


@kernel()
def _is_enough(n_others, xx, xy, xz, yy, yz, zz, min_neighbors, min_spread):
    """At least `min_neighbors`, and all eigenvalues of their spread above `min_spread` (positive leading minors)."""
    xx, yy, zz = xx - min_spread, yy - min_spread, zz - min_spread
    minor = xx * yy - xy * xy
    determinant = zz * minor - xx * yz * yz + 2.0 * xy * xz * yz - yy * xz * xz
    return n_others >= min_neighbors and xx > 0.0 and minor > 0.0 and determinant > 0.0


@kernel()
def _longer(edges, lengths):
    """The same edges with room for twice as many."""
    more_edges, more_lengths = np.empty((2 * len(edges), 4), np.int32), np.empty(2 * len(edges))
    for n in range(len(edges)):
        more_lengths[n] = lengths[n]
        for column in range(4):
            more_edges[n, column] = edges[n, column]
    return more_edges, more_lengths


@kernel()
def _within(
    first, i, reach, positions, lattice, rows, heights, frac, shift, wrapped, n_bins, first_member, members,
    edges, lengths, min_neighbors, min_spread, closest,
):  # fmt: skip
    """Edges of atom i up to `reach` in `edges` (key, image) or a longer array, in any order; and if they are enough."""
    limit = reach + 1e-6  # so that rounding cannot lose the atom itself or one of two equal distances
    wide = limit * (1.0 + 1e-9) + 1e-9
    ax, ay, az = rows[0, 0], rows[0, 1], rows[0, 2]
    bx, by, cx = rows[1, 0], rows[1, 1], rows[2, 0]
    per_az, per_by, per_cx = 1.0 / az, 1.0 / by, 1.0 / cx
    start, stop, is_far = np.empty(3, np.int64), np.empty(3, np.int64), np.empty(3, np.bool_)
    for vector in range(3):
        n_near = math.ceil(wide * n_bins[vector] / heights[vector])
        home = min(math.floor(frac[i, vector] * n_bins[vector]), n_bins[vector] - 1)
        # Far across: going through the bins within reach, images included, is less than trying all images of all bins.
        is_far[vector] = 2 * n_near + 1 <= 2 * n_bins[vector]
        start[vector] = home - n_near if is_far[vector] else 0
        stop[vector] = home + n_near + 1 if is_far[vector] else n_bins[vector]
    all_far = is_far[0] and is_far[1] and is_far[2]
    count = n_others = 0
    xx = xy = xz = yy = yz = zz = 0.0
    for p in range(start[0], stop[0]):
        for q in range(start[1], stop[1]):
            for r in range(start[2], stop[2]):
                place = (p % n_bins[0] * n_bins[1] + q % n_bins[1]) * n_bins[2] + r % n_bins[2]
                a_only, b_only, c_only = p // n_bins[0], q // n_bins[1], r // n_bins[2]
                x_only = a_only * ax + b_only * bx + c_only * cx - wrapped[i, 0]
                y_only = a_only * ay + b_only * by - wrapped[i, 1]
                z_only = a_only * az - wrapped[i, 2]
                for member in range(first_member[place], first_member[place + 1]):
                    j = members[member]
                    if all_far:
                        x, y, z = wrapped[j, 0] + x_only, wrapped[j, 1] + y_only, wrapped[j, 2] + z_only
                        if x * x + y * y + z * z > wide * wide:
                            continue
                    x0 = wrapped[j, 0] - wrapped[i, 0]
                    y0 = wrapped[j, 1] - wrapped[i, 1]
                    z0 = wrapped[j, 2] - wrapped[i, 2]
                    a_first, a_last = a_only, a_only
                    if not is_far[0]:
                        a_first, a_last = math.ceil((-wide - z0) * per_az), math.floor((wide - z0) * per_az)
                    for a in range(a_first, a_last + 1):
                        z = z0 + a * az
                        left = max(0.0, wide * wide - z * z)
                        ya = y0 + a * ay
                        b_first, b_last = b_only, b_only
                        if not is_far[1]:
                            half = math.sqrt(left)
                            b_first, b_last = math.ceil((-half - ya) * per_by), math.floor((half - ya) * per_by)
                        for b in range(b_first, b_last + 1):
                            y = ya + b * by
                            xb = x0 + a * ax + b * bx
                            c_first, c_last = c_only, c_only
                            if not is_far[2]:
                                half = math.sqrt(max(0.0, left - y * y))
                                c_first, c_last = math.ceil((-half - xb) * per_cx), math.floor((half - xb) * per_cx)
                            for c in range(c_first, c_last + 1):
                                u = a + shift[i, 0] - shift[j, 0]
                                v = b + shift[i, 1] - shift[j, 1]
                                w = c + shift[i, 2] - shift[j, 2]
                                ex = _component(0, first + i, first + j, u, v, w, positions, lattice)
                                ey = _component(1, first + i, first + j, u, v, w, positions, lattice)
                                ez = _component(2, first + i, first + j, u, v, w, positions, lattice)
                                squared = ex * ex + ey * ey + ez * ez
                                if squared > limit * limit:
                                    continue
                                if count == len(edges):
                                    edges, lengths = _longer(edges, lengths)
                                length = math.sqrt(squared)
                                lengths[count] = length
                                edges[count, 0], edges[count, 1], edges[count, 2], edges[count, 3] = j, u, v, w
                                count += 1
                                if length > closest:
                                    n_others += 1
                                    weight = 1.0 / squared
                                    xx += ex * ex * weight
                                    xy += ex * ey * weight
                                    xz += ex * ez * weight
                                    yy += ey * ey * weight
                                    yz += ey * ez * weight
                                    zz += ez * ez * weight
    return _is_enough(n_others, xx, xy, xz, yy, yz, zz, min_neighbors, min_spread), count, edges, lengths


@kernel()
def _comes_after(edge, length, other, other_length, edges):
    """Order of two edges of an atom: by length; equal ones by key atom, then image."""
    if length != other_length:
        return length > other_length
    for column in range(4):
        if edges[edge, column] != edges[other, column]:
            return edges[edge, column] > edges[other, column]
    return False


@kernel()
def _sort(count, edges, lengths, order, ordered, start):
    """`order` of the edges, and their lengths in it.

    First by shares of the volume of the sphere, each of which holds about one edge; a Shell sort does the rest.
    """
    longest = 0.0
    for n in range(count):
        longest = max(longest, lengths[n])
        start[n] = 0
    start[count] = 0
    scale = count / max(longest, 1e-9) ** 3
    for n in range(count):
        start[min(int(lengths[n] ** 3 * scale), count - 1) + 1] += 1
    for n in range(1, count):
        start[n] += start[n - 1]
    for n in range(count):
        share = min(int(lengths[n] ** 3 * scale), count - 1)
        place = start[share]
        start[share] += 1
        order[place], ordered[place] = n, lengths[n]
    gap = 1
    while 9 * gap < count:
        gap = 3 * gap + 1
    while gap > 0:
        for n in range(gap, count):
            edge, length, place = order[n], ordered[n], n
            while place >= gap and _comes_after(order[place - gap], ordered[place - gap], edge, length, edges):
                order[place], ordered[place] = order[place - gap], ordered[place - gap]
                place -= gap
            order[place], ordered[place] = edge, length
        gap //= 3


@kernel()
def _smallest_sufficient(
    query, first, count, order, edges, lengths, positions, lattice, min_neighbors, min_spread, closest, shell
):
    """The number of sorted edges that are enough, with the whole shell of the last one."""
    n_others, reach = 0, np.inf
    xx = xy = xz = yy = yz = zz = 0.0
    for n in range(count):
        edge = order[n]
        if lengths[edge] > reach:
            return n
        if reach == np.inf and lengths[edge] > closest:
            j = first + np.int64(edges[edge, 0])
            a, b, c = np.int64(edges[edge, 1]), np.int64(edges[edge, 2]), np.int64(edges[edge, 3])
            x = _component(0, query, j, a, b, c, positions, lattice) / lengths[edge]
            y = _component(1, query, j, a, b, c, positions, lattice) / lengths[edge]
            z = _component(2, query, j, a, b, c, positions, lattice) / lengths[edge]
            n_others += 1
            xx, xy, xz, yy, yz, zz = xx + x * x, xy + x * y, xz + x * z, yy + y * y, yz + y * z, zz + z * z
            if _is_enough(n_others, xx, xy, xz, yy, yz, zz, min_neighbors, min_spread):
                reach = lengths[edge] + shell
    return count


@kernel()
def search(begin, end, first_atom, positions, lattices, radius, min_neighbors, min_spread, closest, shell, limit):
    """Edges of all atoms of crystals `begin` to `end` - 1: the number of each atom's edges; then, for each edge, the
    key atom in its crystal and the image.

    Also (crystal, i, j) of the first two atoms that are closer than `closest`, and their distance; (-1, 0, 0) if none.
    The search ends there, or at (crystal, i, -1): an atom that needs a radius, given as the distance, with more than
    `limit` atoms in it.
    """
    offset = first_atom[begin]
    n_atoms_all, largest = first_atom[end] - offset, 0
    for crystal in range(begin, end):
        largest = max(largest, first_atom[crystal + 1] - first_atom[crystal])
    n_edges = np.empty(n_atoms_all, np.int32)
    found, n_found = np.empty((128 * n_atoms_all, 4), np.int32), 0
    rows, axes, heights = np.empty((3, 3)), np.empty((3, 3)), np.empty(3)
    frac, shift, wrapped = np.empty((largest, 3)), np.empty((largest, 3), np.int64), np.empty((largest, 3))
    n_bins, members = np.empty(3, np.int64), np.empty(largest, np.int64)
    edges, lengths = np.empty((256, 4), np.int32), np.empty(256)
    order, ordered, start = np.empty(256, np.int64), np.empty(256), np.empty(257, np.int64)
    clash, clash_length = (-1, 0, 0), 0.0
    for crystal in range(begin, end):
        first, n_atoms = first_atom[crystal], first_atom[crystal + 1] - first_atom[crystal]
        lattice = lattices[crystal]
        _into_own_axes(lattice, rows, axes, heights)
        _wrap(first, n_atoms, positions, rows, axes, frac, shift, wrapped)
        _count_bins(n_atoms, heights, radius, n_bins)
        first_member = np.empty(n_bins[0] * n_bins[1] * n_bins[2] + 1, np.int64)
        _fill_bins(n_atoms, frac, n_bins, first_member, members)
        density = n_atoms / abs(rows[0, 2] * rows[1, 1] * rows[2, 0])
        for i in range(n_atoms):
            n_searches, reach, enough, count = 0, radius, False, 0
            while not enough:
                if n_searches > 0 and density * SPHERE * reach**3 > limit:
                    return n_edges, found[:n_found], (crystal, i, -1), reach
                enough, count, edges, lengths = _within(
                    first, i, reach, positions, lattice, rows, heights, frac, shift, wrapped, n_bins, first_member,
                    members, edges, lengths, min_neighbors, min_spread, closest,
                )  # fmt: skip
                n_searches += 1
                reach = max(radius, heights[0], heights[1], heights[2]) if n_searches == 1 else 1.5 * reach
            if len(order) < len(edges):
                room = len(edges)
                order, ordered, start = np.empty(room, np.int64), np.empty(room), np.empty(room + 1, np.int64)
            _sort(count, edges, lengths, order, ordered, start)
            if n_searches > 1:
                count = _smallest_sufficient(
                    first + i, first, count, order, edges, lengths, positions, lattice, min_neighbors, min_spread,
                    closest, shell,
                )  # fmt: skip
            if n_found + count > len(found):
                more = np.empty((max(2 * len(found), n_found + count), 4), np.int32)
                for n in range(n_found):
                    for column in range(4):
                        more[n, column] = found[n, column]
                found = more
            for n in range(count):
                edge = order[n]
                if lengths[edge] < closest and clash[0] < 0:
                    j, a, b, c = edges[edge, 0], edges[edge, 1], edges[edge, 2], edges[edge, 3]
                    if j != i or a != 0 or b != 0 or c != 0:
                        clash, clash_length = (crystal, i, int(j)), lengths[edge]
                for column in range(4):
                    found[n_found + n, column] = edges[edge, column]
            n_edges[first - offset + i] = count
            n_found += count
            if clash[0] >= 0:
                return n_edges, found[:n_found], clash, clash_length
    return n_edges, found[:n_found], clash, clash_length


@kernel()
def batch_edges(
    rows, first_atom, first_edge, edges_per_atom, key_atom, edge_image, positions, lattices, index, image, vectors
):
    """Write the edges of these crystals into the last three arrays; see `neighbors.batch_edges`."""
    n_atoms = n_edges = 0
    for row in rows:
        first, edge, lattice = first_atom[row], first_edge[row], lattices[row]
        for i in range(first, first_atom[row + 1]):
            for _ in range(edges_per_atom[i]):
                j = np.int64(key_atom[edge])
                a, b, c = np.int64(edge_image[edge, 0]), np.int64(edge_image[edge, 1]), np.int64(edge_image[edge, 2])
                index[0, n_edges], index[1, n_edges] = n_atoms + i - first, n_atoms + j
                image[n_edges, 0], image[n_edges, 1], image[n_edges, 2] = a, b, c
                for d in range(3):
                    vectors[n_edges, d] = _component(d, i, first + j, a, b, c, positions, lattice)
                edge += 1
                n_edges += 1
        n_atoms += first_atom[row + 1] - first
