// Where the boxes of the map stand: in layers from callers on the left to the called on the right. Pure.
//
// A box that has a place keeps it: new ones go to the end of their layer. So an update never moves what is there.

export const BOX = { width: 184, height: 50, across: 150, down: 26 };
export const LABEL = { width: 128, height: 16 };

/** Return the layer of each node: one more than that of its callers; calls that close a circle do not count. */
function layersOf(ids, edges, fixed) {
  const callers = new Map(ids.map((id) => [id, []]));
  for (const edge of edges) {
    if (edge.from !== edge.to) callers.get(edge.to)?.push(edge.from);
  }
  const layers = new Map(fixed);
  const open = new Set();
  const layer = (id) => {
    if (layers.has(id)) return layers.get(id);
    if (open.has(id)) return -1;
    open.add(id);
    const found = 1 + Math.max(-1, ...(callers.get(id) ?? []).map(layer));
    open.delete(id);
    layers.set(id, found);
    return found;
  };
  ids.forEach(layer);
  return layers;
}

function sortByNeighbours(columns, edges) {
  const near = new Map();
  for (const { from, to } of edges) {
    if (!near.has(from)) near.set(from, []);
    if (!near.has(to)) near.set(to, []);
    near.get(from).push(to);
    near.get(to).push(from);
  }
  const place = new Map();
  const note = (column) => column.forEach((id, at) => place.set(id, (at + 0.5) / column.length));
  columns.forEach(note);
  for (let sweep = 0; sweep < 6; sweep += 1) {
    const order = sweep % 2 ? [...columns].reverse() : columns;
    for (const column of order) {
      const weight = new Map(column.map((id) => {
        const others = (near.get(id) ?? []).map((other) => place.get(other));
        return [id, others.length ? others.reduce((sum, one) => sum + one, 0) / others.length : place.get(id)];
      }));
      column.sort((a, b) => weight.get(a) - weight.get(b) || (a < b ? -1 : 1));
      note(column);
    }
  }
}

export class Layout {
  constructor() {
    this.places = new Map();
    this.columns = [];
  }

  /** Give a place to each node that has none. Return whether anything is new. */
  place(ids, edges) {
    const fresh = ids.filter((id) => !this.places.has(id));
    if (!fresh.length) return false;
    const first = this.places.size === 0;
    const fixed = new Map([...this.places].map(([id, place]) => [id, place.layer]));
    const layers = layersOf([...fresh].sort(), edges, fixed);
    for (const id of [...fresh].sort()) {
      const layer = Math.max(0, layers.get(id));
      while (this.columns.length <= layer) this.columns.push([]);
      this.columns[layer].push(id);
    }
    if (first) sortByNeighbours(this.columns, edges);
    this.columns.forEach((column, layer) => column.forEach((id, at) => {
      if (this.places.has(id)) return;
      this.places.set(id, {
        layer,
        x: 12 + layer * (BOX.width + BOX.across),
        // Half a box lower in every other layer, so that fewer calls pass behind a box.
        y: 12 + (at + (layer % 2) / 2) * (BOX.height + BOX.down),
      });
    }));
    return true;
  }

  get size() {
    const all = [...this.places.values()];
    return {
      width: Math.max(0, ...all.map((one) => one.x)) + BOX.width + 60,
      height: Math.max(0, ...all.map((one) => one.y)) + BOX.height + 40,
    };
  }
}

/** Return the curve of an edge, as four points. */
export function curveOf(from, to) {
  const middle = BOX.height / 2;
  const start = [from.x + BOX.width, from.y + middle];
  const end = [to.x, to.y + middle];
  if (from === to) {
    return [[from.x + BOX.width, from.y + 12], [from.x + BOX.width + 55, from.y - 12], [from.x + BOX.width + 55, from.y + 62], [from.x + BOX.width, from.y + 38]];
  }
  if (to.x > from.x) {
    const bend = Math.max(50, (end[0] - start[0]) / 2);
    return [start, [start[0] + bend, start[1]], [end[0] - bend, end[1]], end];
  }
  // Back to a caller: below the boxes.
  const below = Math.max(from.y, to.y) + BOX.height + 30;
  return [[from.x + BOX.width / 2, from.y + BOX.height], [from.x + BOX.width / 2, below], [to.x + BOX.width / 2, below], [to.x + BOX.width / 2, to.y + BOX.height]];
}

export function pointOn([a, b, c, d], t) {
  const mix = (i) => (1 - t) ** 3 * a[i] + 3 * (1 - t) ** 2 * t * b[i] + 3 * (1 - t) * t * t * c[i] + t ** 3 * d[i];
  return [mix(0), mix(1)];
}

const overlap = (a, b) => Math.abs(a[0] - b[0]) < (a[2] + b[2]) / 2 && Math.abs(a[1] - b[1]) < (a[3] + b[3]) / 2;

/** Return the middle of a label on a curve: where it covers no box and no other label, if there is such a place. */
export function placeLabel(curve, taken) {
  const at = (t) => [...pointOn(curve, t), LABEL.width, LABEL.height];
  const free = [0.5, 0.42, 0.58, 0.34, 0.66, 0.26, 0.74].map(at).find((one) => !taken.some((other) => overlap(one, other)));
  const chosen = free ?? at(0.5);
  taken.push(chosen);
  return chosen;
}

export const boxAt = (place) => [place.x + BOX.width / 2, place.y + BOX.height / 2, BOX.width, BOX.height];
