// A region that the reader draws: which cells a closed line contains, and the figures of values.

// The cells [x, y] of a grid W × H whose centres are inside a polygon of points [x, y] in cells; at least the cell of its start.
function cellsInside(polygon, W, H) {
  const cells = [], xs = polygon.map((q) => q[0]), ys = polygon.map((q) => q[1]);
  const within = (v, most) => Math.min(Math.max(Math.floor(v), 0), most - 1);
  for (let y = within(Math.min(...ys), H); y <= within(Math.max(...ys), H); y++) {
    for (let x = within(Math.min(...xs), W); x <= within(Math.max(...xs), W); x++) {
      let inside = false; // by the number of edges that a ray to the right crosses
      for (let i = 0, j = polygon.length - 1; i < polygon.length; j = i++) {
        const [ax, ay] = polygon[i], [bx, by] = polygon[j], py = y + 0.5;
        if (ay > py !== by > py && x + 0.5 < ax + ((py - ay) * (bx - ax)) / (by - ay)) inside = !inside;
      }
      if (inside) cells.push([x, y]);
    }
  }
  return cells.length ? cells : [[within(xs[0], W), within(ys[0], H)]];
}

// The figures of the finite values, as rimap/report/statistics.py has them.
function figuresOf(values) {
  const x = Float64Array.from(values.filter(Number.isFinite)).sort(), n = x.length;
  const quantile = (share) => {
    const place = share * (n - 1), below = Math.floor(place);
    return n ? x[below] + (place - below) * ((below + 1 < n ? x[below + 1] : x[below]) - x[below]) : NaN;
  };
  const mean = n ? x.reduce((sum, v) => sum + v, 0) / n : NaN;
  const sd = n > 1 ? Math.sqrt(x.reduce((sum, v) => sum + (v - mean) ** 2, 0) / (n - 1)) : NaN;
  return { n, median: quantile(0.5), q25: quantile(0.25), q75: quantile(0.75), mean, sd };
}
