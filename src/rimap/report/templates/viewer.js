// The viewer of a report: it reads the blocks of the page, draws slices on canvases and the signal as SVG. No dependency.
(async () => {
  const $ = (id) => document.getElementById(id);
  const viewer = $("viewer"), about = JSON.parse($("viewer-data").textContent);
  const svgSpace = $("curve").namespaceURI;

  // ---- reading the blocks ---------------------------------------------------------------------------------------
  async function block(name) {
    const text = atob($("block-" + name.replaceAll(" ", "-")).textContent.trim());
    const bytes = new Uint8Array(text.length);
    for (let i = 0; i < bytes.length; i++) bytes[i] = text.charCodeAt(i);
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    return new Uint8Array(await new Response(stream).arrayBuffer());
  }

  function whole(bytes, start, n) { // low bytes, then high bytes
    const codes = new Uint16Array(n);
    for (let i = 0; i < n; i++) codes[i] = bytes[start + i] | (bytes[start + n + i] << 8);
    return codes;
  }

  function decoded(codes, how) {
    const values = new Float32Array(codes.length);
    for (let i = 0; i < codes.length; i++) {
      const c = codes[i], place = (c - 2) * how.step;
      values[i] = c === 0 ? NaN : !how.log ? how.low + place : c === 1 ? 0 : how.low * Math.exp(place);
    }
    return values;
  }

  if (typeof DecompressionStream === "undefined") {
    $("too-old").hidden = false;
    return;
  }
  const shape = about.shape, steps = [shape[1] * shape[2], shape[2], 1];
  const status = await block("status");
  const stored = new Int32Array(status.length).fill(-1); // the place of a voxel among those that are stored
  let n = 0;
  for (let g = 0; g < status.length; g++) if (status[g] !== 255) stored[g] = n++;
  const maps = {};
  for (const [name, how] of Object.entries(about.codes)) {
    const bytes = await block(name);
    maps[name] = decoded(whole(bytes, 0, bytes.length / 2), how);
  }
  const table = about.table;
  if (table) {
    const bytes = await block("table");
    table.entries = new Int16Array(whole(bytes, 0, bytes.length / 2).buffer);
  }
  const images = about.images;
  let imageBytes = null, kept = null, nKept = 0;

  async function readImages() {
    const bytes = await block("images");
    kept = new Int32Array(n).fill(-1);
    for (let g = 0; g < status.length; g++) {
      if (stored[g] < 0) continue;
      const k = Math.floor(g / steps[images.through]) % shape[images.through];
      if (k % images.every === images.first || images.every === 1) kept[stored[g]] = nKept++;
    }
    imageBytes = bytes;
  }

  const clamp = (x, low, high) => Math.min(Math.max(x, low), high);

  // ---- values ---------------------------------------------------------------------------------------------------
  const main = about.maps.find((m) => m.key === about.main);

  function placeOn(axis, p) { // in steps from the first node
    const value = maps[axis.name][p];
    return clamp(((axis.log ? Math.log(value) : value) - axis.low) / axis.step, 0, axis.n - 1) || 0;
  }

  // The nodes from which the shape of voxel `p` is interpolated, and their weights (rimap/report/curves.py).
  let nodes = new Int32Array(0), weights = new Float64Array(0), nNodes = 0;
  function stencil(p, shifted = null, by = 0) { // with a place along one axis moved by a part of a step
    if (!nodes.length) {
      const most = table.axes.reduce((n, axis) => n * Math.min(axis.n, 4), 1);
      nodes = new Int32Array(most);
      weights = new Float64Array(most);
    }
    nodes[0] = 0;
    weights[0] = 1;
    nNodes = 1;
    for (const axis of table.axes) {
      const place = clamp(placeOn(axis, p) + (axis === shifted ? by : 0), 0, axis.n - 1);
      const first = axis.n < 4 ? 0 : clamp(Math.floor(place) - 1, 0, axis.n - 4), t = place - first;
      const a = t - 1, b = t - 2, c = t - 3;
      const w = axis.n === 1 ? [1] : axis.n === 2 ? [1 - t, t] : [(-a * b * c) / 6, (t * b * c) / 2, (-t * a * c) / 2, (t * a * b) / 6];
      for (let k = w.length - 1; k >= 0; k--) // the first node last: it is written in place
        for (let i = 0; i < nNodes; i++) {
          nodes[k * nNodes + i] = nodes[i] * axis.n + first + k;
          weights[k * nNodes + i] = weights[i] * w[k];
        }
      nNodes *= w.length;
    }
  }
  function fitted(point, p) { // the signal before the modulus at a point of the curve, after `stencil(p)`
    if (!table) return NaN;
    const K = table.shape[1], size = table.shape.slice(2).reduce((n, m) => n * m, 1);
    let signal = 0;
    for (let k = 0; k < K; k++) {
      let g = 0;
      for (let i = 0; i < nNodes; i++) g += table.entries[(point * K + k) * size + nodes[i]] * weights[i];
      const name = table.amplitudes[k];
      signal += (name === undefined ? 1 : maps[name][p]) * g * table.scale;
    }
    return table.axes.every((axis) => Number.isFinite(maps[axis.name][p])) ? signal : NaN;
  }
  function shapes(point) { // the factor of each amplitude at a point of the curve, after `stencil(p)`
    const K = table.shape[1], size = table.shape.slice(2).reduce((n, m) => n * m, 1);
    return Array.from({ length: K }, (_, k) => {
      let g = 0;
      for (let i = 0; i < nNodes; i++) g += table.entries[(point * K + k) * size + nodes[i]] * weights[i];
      return g * table.scale;
    });
  }

  // Half the width of the 95 % band of the curve of voxel `p` at each of its points (band.js); null if there is none.
  function band(p) {
    // A field that is the same everywhere counts as known: it was determined from all voxels.
    const free = table.axes.filter((axis) => axis.n > 1 && about.free.includes(axis.name));
    const time = free.find((axis) => axis.name === about.time);
    if (!time || !maps["sd " + time.name] || free.some((axis) => !maps["sd " + axis.name])) return null;
    const every = table.points.map((_, i) => i), columns = [];
    for (const axis of free) { // by the parameter, or its logarithm
      const middle = placeOn(axis, p), low = Math.max(middle - 0.05, 0), high = Math.min(middle + 0.05, axis.n - 1);
      stencil(p, axis, low - middle);
      const below = every.map((i) => fitted(i, p));
      stencil(p, axis, high - middle);
      columns.push(every.map((i) => (fitted(i, p) - below[i]) / ((high - low) * axis.step)));
    }
    stencil(p);
    const amplitudes = table.amplitudes.map((name, k) => [name, k]).filter(([name]) => about.free.includes(name));
    const ofAmplitude = every.map((i) => shapes(i));
    const rows = every.map((i) => [...columns.map((c) => c[i]), ...amplitudes.map(([, k]) => ofAmplitude[i][k])]);
    if (!rows.every((row) => row.every(Number.isFinite))) return null;
    const known = (axis) => ({ at: free.indexOf(axis), sd: maps["sd " + axis.name][p] / (axis.log ? maps[axis.name][p] : 1) });
    const others = free.filter((axis) => axis !== time).map(known);
    return bandOf(table.images.map((i) => rows[i]), rows, about.sigma || 1, known(time), others);
  }

  const modulus = (x) => (table && table.magnitude ? Math.abs(x) : x);

  function measured(image, p) {
    if (!imageBytes || p < 0 || kept[p] < 0) return NaN;
    const at = image * 2 * nKept + kept[p];
    const code = imageBytes[at] | (imageBytes[at + nKept] << 8);
    if (code === 65535) return NaN;
    if (table) stencil(p);
    const base = modulus(table ? fitted(table.images[image], p) : NaN);
    return (Number.isFinite(base) ? base : 0) + (code & 1 ? -(code + 1) / 2 : code / 2) * images.step;
  }

  function relative(name, p) {
    const value = maps[name][p];
    return value > 0 ? (100 * maps["sd " + name][p]) / value : NaN;
  }

  // ---- numbers for people ---------------------------------------------------------------------------------------
  const grouped = (x, decimals) =>
    x.toLocaleString("en-US", { minimumFractionDigits: decimals, maximumFractionDigits: decimals });
  function num(x, digits = 3) {
    if (!Number.isFinite(x)) return "–";
    if (x === 0) return "0";
    const size = Math.floor(Math.log10(Math.abs(x)) + 1e-9);
    if (size < -4) return x.toPrecision(digits);
    return grouped(x, Math.max(0, digits - 1 - size));
  }
  function withSd(x, sd) {
    if (!Number.isFinite(x)) return "–";
    if (!Number.isFinite(sd) || sd <= 0) return num(x, 4);
    const size = Math.floor(Math.log10(Math.abs(x) || 1));
    const decimals = Math.max(0, Math.min(1 - Math.floor(Math.log10(sd)), 4 - size));
    return `${grouped(x, decimals)} ± ${grouped(sd, decimals)}`;
  }
  const axisTitle = about.axis.title + (about.axis.unit ? ` (${about.axis.unit})` : "");

  function ticks(low, high, count) {
    const raw = (high - low) / count, power = 10 ** Math.floor(Math.log10(raw));
    const step = power * [1, 2, 2.5, 5, 10].find((s) => s * power >= raw * 0.999);
    const out = [];
    for (let k = Math.ceil(low / step - 1e-9); k * step <= high + 1e-9 * step; k++) out.push(k * step + 0);
    return out;
  }

  // ---- colours (rimap/colours.py) -------------------------------------------------------------------------------
  const opaque = (r, g, b) => (0xff000000 | (b << 16) | (g << 8) | r) >>> 0;
  const palettes = Object.fromEntries(
    Object.entries(about.palettes).map(([name, text]) => {
      const raw = atob(text);
      return [name, Uint32Array.from({ length: 256 }, (_, i) => opaque(...[0, 1, 2].map((c) => raw.charCodeAt(3 * i + c))))];
    })
  );
  const statusColours = new Uint32Array(256).fill(opaque(0, 0, 0));
  for (const [code, s] of Object.entries(about.statuses))
    statusColours[code] = opaque(...[1, 3, 5].map((i) => parseInt(s.colour.slice(i, i + 2), 16)));

  function entry(x, panel) { // 0 for no value, else 1 to 255
    if (!Number.isFinite(x)) return 0;
    const { low, high } = panel;
    x = Math.min(Math.max(x, low), high);
    let f = (x - low) / (high - low);
    if (panel.log) { // linear up to high/e, logarithmic above
      const knee = high / Math.E, middle = Math.max(knee, low);
      const share = knee > low ? (knee - low) / (2 * knee - low) : 0;
      if (x > middle) f = share + ((1 - share) * Math.log(x / middle)) / Math.log(high / middle);
      else f = knee > low ? (share * (x - low)) / (knee - low) : 0;
    }
    return Math.min(Math.max(1 + Math.floor(f * 254 + 0.5), 1), 255);
  }

  // ---- state ----------------------------------------------------------------------------------------------------
  const voxel = about.start.map((v, a) => clamp(Math.round((v - about.origin[a]) / about.stride[a]), 0, shape[a] - 1));
  const state = { plane: about.planes[0], three: false, image: about.order[0], main: about.panels[0].key, drawing: false };
  const region = { has: new Uint8Array(status.length), n: 0, line: null }; // drawn voxels; the line that is being drawn
  const full = (a) => about.origin[a] + voxel[a] * about.stride[a];
  const index = () => voxel.reduce((sum, v, a) => sum + v * steps[a], 0);
  const nSlices = () => shape[state.plane.axes[2]];

  // ---- panels ---------------------------------------------------------------------------------------------------
  const panels = about.panels.map((p) => ({
    ...p,
    window: [p.low, p.high],
    value: p.key.startsWith("sd ") ? (at) => relative(p.key.slice(3), at) : (at) => maps[p.key][at],
    colours: palettes[p.palette],
  }));
  panels.push({ key: "status", title: "Quality flags", unit: "", colours: statusColours });
  if (images) {
    panels.push({
      key: "image", title: "Image", unit: "a.u.", low: images.low, high: images.high, window: [images.low, images.high],
      value: (at) => measured(state.image, at), colours: palettes.grey,
    });
  }

  function make(tag, attributes = {}, ...children) {
    const element = document.createElement(tag);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    element.append(...children);
    return element;
  }
  function svg(parent, tag, attributes, text) {
    const element = document.createElementNS(svgSpace, tag);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    if (text !== undefined) element.textContent = text;
    parent.append(element);
    return element;
  }

  for (const panel of panels) {
    panel.name = make("button", { type: "button", class: "name", title: "Show large" }, panel.title + (panel.unit && panel.key !== "image" ? `, ${panel.unit[0] === "%" ? "%" : panel.unit}` : ""));
    panel.now = make("span", { class: "now" });
    panel.area = make("div", { class: "area" });
    panel.foot = make("div", { class: "foot" });
    panel.box = make("div", { class: "panel", "data-key": panel.key }, make("div", { class: "head" }, panel.name, panel.now), panel.area, panel.foot);
    panel.name.addEventListener("click", () => {
      state.main = panel.key;
      arrange();
    });
    if (panel.key === "status") {
      const there = new Set(status);
      for (const [code, s] of Object.entries(about.statuses)) {
        if (!there.has(Number(code))) continue;
        const swatch = make("i", { class: "swatch" });
        swatch.style.background = s.colour;
        panel.foot.append(make("span", { class: "key" }, swatch, s.name));
      }
    } else {
      panel.bar = make("canvas", { width: 256, height: 1, class: "scale", "aria-hidden": "true" });
      panel.marks = make("div", { class: "marks", "aria-hidden": "true" });
      panel.foot.append(panel.bar, panel.marks);
    }
    if (panel.key === "image") {
      panel.slider = make("input", { type: "range", min: 0, max: about.values.length - 1, step: 1, "aria-label": `Image by its ${about.axis.title}` });
      panel.slider.addEventListener("input", () => {
        state.image = about.order[panel.slider.value];
        draw();
      });
      panel.foot.append(panel.slider);
    }
  }

  let views = []; // a canvas with a panel and a plane each
  function view(panel, plane, holder) {
    const canvas = make("canvas", { role: "img", "data-key": panel.key, "data-plane": plane.name });
    const frame = make("div", { class: "frame" }, canvas);
    const [right, down] = plane.axes;
    const edge = (a) => shape[a] * about.stride[a] * about.edges[a];
    frame.style.aspectRatio = String(clamp(edge(right) / edge(down), 0.4, 6));
    holder.append(frame);
    const v = { panel, plane, canvas, hidden: document.createElement("canvas") };
    v.hidden.width = shape[right];
    v.hidden.height = shape[down];
    canvas.addEventListener("pointerdown", (e) => {
      if (e.button) return;
      canvas.setPointerCapture(e.pointerId);
      $("stage").focus({ preventScroll: true });
      if (state.drawing) region.line = { view: v, points: [cellOf(v, e)] };
      else pick(v, e);
    });
    canvas.addEventListener("pointermove", (e) => {
      if (!canvas.hasPointerCapture(e.pointerId)) return;
      if (!region.line) return pick(v, e);
      region.line.points.push(cellOf(v, e));
      draw();
    });
    canvas.addEventListener("pointerup", (e) => {
      if (region.line) close(e);
    });
    canvas.addEventListener("pointercancel", () => {
      region.line = null;
      draw();
    });
    let turned = 0;
    canvas.addEventListener("wheel", (e) => {
      if (e.ctrlKey || shape[plane.axes[2]] < 2) return;
      e.preventDefault();
      turned += e.deltaY * (e.deltaMode ? 40 : 1);
      const by = Math.trunc(turned / 40);
      turned -= by * 40;
      if (by) move(plane.axes[2], clamp(by, -3, 3));
    }, { passive: false });
    views.push(v);
  }

  function arrange() {
    views = [];
    const hero = panels.find((p) => p.key === state.main) || panels[0];
    $("hero").replaceChildren(hero.box);
    $("row").replaceChildren(...panels.filter((p) => p !== hero).map((p) => p.box));
    for (const panel of panels) {
      const planes = state.three && panel === hero ? about.planes : [state.plane];
      panel.area.replaceChildren();
      panel.area.classList.toggle("three", planes.length > 1);
      for (const plane of planes) view(panel, plane, panel.area);
    }
    const slider = $("slice");
    slider.max = nSlices() - 1;
    $("slices").hidden = nSlices() < 2;
    $("window").hidden = hero.low === undefined;
    if (hero.low !== undefined) {
      $("low").value = hero.low;
      $("high").value = hero.high;
      $("window-unit").textContent = hero.unit;
    }
    watch.disconnect();
    views.forEach((v) => watch.observe(v.canvas.parentElement));
    scales();
    draw();
  }

  function scales() {
    for (const panel of panels.filter((p) => p.bar)) {
      const context = panel.bar.getContext("2d"), row = context.createImageData(256, 1), pixels = new Uint32Array(row.data.buffer);
      for (let i = 0; i < 256; i++) pixels[i] = panel.colours[entry(panel.low + ((panel.high - panel.low) * i) / 255, panel)];
      context.putImageData(row, 0, 0);
      panel.marks.replaceChildren(
        ...ticks(panel.low, panel.high, panel.key === state.main ? 6 : 3).map((t) => {
          const mark = make("span", {}, Number(t.toPrecision(6)).toLocaleString("en-US"));
          mark.style.left = `${(100 * (t - panel.low)) / (panel.high - panel.low)}%`;
          return mark;
        })
      );
    }
  }

  // ---- drawing --------------------------------------------------------------------------------------------------
  let waiting = 0;
  function draw() {
    if (!waiting) {
      waiting = requestAnimationFrame(() => {
        waiting = 0;
        views.forEach(paint);
      });
    }
    card();
    const slice = full(state.plane.axes[2]);
    $("slice").value = voxel[state.plane.axes[2]];
    $("slice-at").textContent = `${slice + 1} of ${about.full[state.plane.axes[2]]}`;
    viewer.dataset.voxel = [0, 1, 2].map(full).join(" ");
    viewer.dataset.slice = slice;
  }

  function paint(v) {
    const { panel, plane, canvas } = v, [right, down, through] = plane.axes, [flipX, flipY] = plane.flips;
    const W = shape[right], H = shape[down], context = v.hidden.getContext("2d");
    const picture = context.createImageData(W, H), pixels = new Uint32Array(picture.data.buffer);
    const start = voxel[through] * steps[through];
    for (let y = 0; y < H; y++) {
      for (let x = 0; x < W; x++) {
        const g = start + (flipX ? W - 1 - x : x) * steps[right] + (flipY ? H - 1 - y : y) * steps[down];
        const p = stored[g];
        pixels[y * W + x] = panel.key === "status" ? panel.colours[status[g]] : panel.colours[p < 0 ? 0 : entry(panel.value(p), panel)];
      }
    }
    context.putImageData(picture, 0, 0);
    const box = canvas.getBoundingClientRect(), density = window.devicePixelRatio || 1;
    if (!box.width) return;
    canvas.width = Math.round(box.width * density);
    canvas.height = Math.round(box.height * density);
    const c = canvas.getContext("2d");
    c.scale(density, density);
    c.imageSmoothingEnabled = false;
    const mmX = about.edges[right] * about.stride[right], mmY = about.edges[down] * about.stride[down];
    const scale = Math.min(box.width / (W * mmX), box.height / (H * mmY));
    const w = W * mmX * scale, h = H * mmY * scale, left = (box.width - w) / 2, top = (box.height - h) / 2;
    Object.assign(v, { left, top, w, h });
    c.drawImage(v.hidden, left, top, w, h);
    const x = 0.5 + Math.floor(left + ((flipX ? W - 1 - voxel[right] : voxel[right]) + 0.5) * mmX * scale);
    const y = 0.5 + Math.floor(top + ((flipY ? H - 1 - voxel[down] : voxel[down]) + 0.5) * mmY * scale);
    const gap = Math.max(6, 1.5 * Math.max(mmX, mmY) * scale);
    const large = panel.key === state.main;
    for (const [colour, width] of large ? [["rgba(0,0,0,0.55)", 3], ["rgba(255,255,255,0.9)", 1]] : [["rgba(255,255,255,0.75)", 1]]) {
      c.strokeStyle = colour;
      c.lineWidth = width;
      c.beginPath();
      for (const [a, b, ax, ay] of [[left, x - gap, 1, 0], [x + gap, left + w, 1, 0], [top, y - gap, 0, 1], [y + gap, top + h, 0, 1]]) {
        if (b <= a) continue;
        c.moveTo(ax ? a : x, ax ? y : a);
        c.lineTo(ax ? b : x, ax ? y : b);
      }
      c.stroke();
    }
    outline(v, c, mmX * scale, mmY * scale);
    c.font = "600 12px system-ui, sans-serif";
    c.fillStyle = "#f2f5f7";
    c.shadowColor = "#000";
    c.shadowBlur = 4;
    const letters = [[5, box.height / 2, "left", "middle"], [box.width - 5, box.height / 2, "right", "middle"], [box.width / 2, 4, "center", "top"], [box.width / 2, box.height - 4, "center", "bottom"]];
    if (large) letters.forEach(([lx, ly, align, base], i) => {
      c.textAlign = align;
      c.textBaseline = base;
      for (let again = 0; again < 3; again++) c.fillText(plane.letters[i], lx, ly);
    });
    canvas.setAttribute("aria-label", `${panel.title}, ${plane.name || "slice"} ${full(through) + 1}`);
  }

  function cellOf(v, event) { // [x, y] in cells of the picture, whole numbers at their edges
    if (!v.w) paint(v);
    const box = v.canvas.getBoundingClientRect(), [right, down] = v.plane.axes;
    const place = [(event.clientX - box.left - v.left) / v.w, (event.clientY - box.top - v.top) / v.h];
    return [clamp(place[0], 0, 1) * shape[right], clamp(place[1], 0, 1) * shape[down]];
  }

  function pick(v, event) {
    const cell = cellOf(v, event);
    v.plane.axes.slice(0, 2).forEach((a, i) => {
      const at = clamp(Math.floor(cell[i]), 0, shape[a] - 1);
      voxel[a] = v.plane.flips[i] ? shape[a] - 1 - at : at;
    });
    draw();
  }

  function move(axis, by) {
    voxel[axis] = clamp(voxel[axis] + by, 0, shape[axis] - 1);
    draw();
  }

  // ---- a region that is drawn -----------------------------------------------------------------------------------
  function voxelAt(v, x, y) { // of a cell of the picture in the slice that is shown
    const [right, down, through] = v.plane.axes, [flipX, flipY] = v.plane.flips;
    return voxel[through] * steps[through] + (flipX ? shape[right] - 1 - x : x) * steps[right] + (flipY ? shape[down] - 1 - y : y) * steps[down];
  }

  function close(event) { // the line: a new region, or with Shift more of it, with Alt less
    const { view: v, points } = region.line, [right, down] = v.plane.axes;
    region.line = null;
    if (!event.shiftKey && !event.altKey) region.has.fill(0);
    for (const [x, y] of cellsInside(points, shape[right], shape[down])) region.has[voxelAt(v, x, y)] = event.altKey ? 0 : 1;
    figures();
    draw();
  }

  function clearRegion() {
    region.has.fill(0);
    region.line = null;
    figures();
    draw();
  }

  function outline(v, c, width, height) { // of the region and of the line, in both of two colours to be seen on any map
    const [right, down] = v.plane.axes, W = shape[right], H = shape[down], path = new Path2D();
    const has = (x, y) => x >= 0 && y >= 0 && x < W && y < H && region.has[voxelAt(v, x, y)];
    if (region.n) {
      for (let y = 0; y < H; y++) {
        for (let x = 0; x < W; x++) {
          if (!has(x, y)) continue;
          const [l, r, t, b] = [v.left + x * width, v.left + (x + 1) * width, v.top + y * height, v.top + (y + 1) * height];
          for (const [there, ax, ay, bx, by] of [[has(x - 1, y), l, t, l, b], [has(x + 1, y), r, t, r, b], [has(x, y - 1), l, t, r, t], [has(x, y + 1), l, b, r, b]]) {
            if (there) continue;
            path.moveTo(ax, ay);
            path.lineTo(bx, by);
          }
        }
      }
    }
    if (region.line && region.line.view === v)
      region.line.points.forEach(([x, y], i) => path[i ? "lineTo" : "moveTo"](v.left + x * width, v.top + y * height));
    for (const [colour, thick] of [["rgba(0,0,0,0.7)", 3.5], ["#4ff5e6", 1.6]]) {
      c.strokeStyle = colour;
      c.lineWidth = thick;
      c.stroke(path);
    }
  }

  function figures() { // of the region, for each map
    const inside = [];
    let background = 0, notOk = 0;
    for (let g = 0; g < status.length; g++) {
      if (!region.has[g]) continue;
      if (stored[g] < 0) background++;
      else inside.push(g);
    }
    region.n = inside.length + background;
    viewer.dataset.region = region.n;
    $("region").hidden = !region.n && !state.drawing;
    $("region-draw").hidden = Boolean(region.n);
    $("region-has").hidden = !region.n;
    if (!region.n) return;
    const flags = {};
    for (const g of inside) flags[status[g]] = (flags[status[g]] || 0) + 1;
    for (const [code, count] of Object.entries(flags)) if (about.statuses[code].name !== "ok") notOk += count;
    const counted = inside.filter((g) => about.counted.includes(status[g])).map((g) => stored[g]);
    const voxels = (count) => `${grouped(count, 0)} voxel${count === 1 ? "" : "s"}`;
    const few = about.stride.reduce((product, s) => product * s, 1);
    const size = about.edges.reduce((product, e, a) => product * e * about.stride[a], inside.length) / 1000;
    $("region-name").textContent = `Region of ${voxels(inside.length)}`;
    $("region-size").textContent = about.affine ? `${num(size)} ml` : "";
    $("region-rows").replaceChildren(...about.maps.map(({ key, name, unit }) => {
      const f = figuresOf(counted.map((p) => maps[key][p]));
      const cells = [grouped(f.n, 0), num(f.median, 4), f.n ? `${num(f.q75 - f.q25)} (${num(f.q25)}–${num(f.q75)})` : "–", num(f.mean, 4), num(f.sd)];
      return make("tr", {}, make("th", { scope: "row" }, unit ? `${name}, ${unit}` : name), ...cells.map((cell) => make("td", { class: "n" }, cell)));
    }));
    const share = inside.length ? (100 * notOk) / inside.length : NaN;
    const kinds = Object.entries(flags).filter(([code]) => about.statuses[code].name !== "ok").map(([code, count]) => `${about.statuses[code].name} ${grouped(count, 0)}`);
    $("region-note").textContent = [
      `Not ok: ${num(share, 2)} % of the voxels${kinds.length ? ` (${kinds.join(", ")})` : ""}.`,
      "The figures describe voxels that are ok or at a bound.",
      background ? `${voxels(background)} more: ${about.outside}.` : "",
      few > 1 ? `This page has one voxel in ${few}, and so does the region.` : "",
    ].join(" ");
  }

  // ---- the voxel ------------------------------------------------------------------------------------------------
  let saying = 0;
  function card() {
    const g = index(), p = stored[g], s = about.statuses[status[g]];
    const words = p < 0 ? about.outside : s.name === s.meaning ? s.name : `${s.name}: ${s.meaning}`;
    $("voxel-name").textContent = `Voxel [${[0, 1, 2].slice(0, Math.max(about.axes, 2)).map(full).join(", ")}]`;
    $("voxel-mm").textContent = about.affine
      ? about.affine.slice(0, 3).map((row, a) => {
          const mm = row[0] * full(0) + row[1] * full(1) + row[2] * full(2) + row[3];
          return `${Math.abs(mm).toFixed(1)} mm ${["LR", "PA", "IS"][a][mm >= 0 ? 1 : 0]}`;
        }).join(", ")
      : "";
    const rows = [];
    for (const { key, name, unit } of about.maps) {
      const value = p < 0 ? NaN : maps[key][p], sd = maps["sd " + key] && p >= 0 ? maps["sd " + key][p] : NaN;
      rows.push([name, `${withSd(value, sd)}${unit && Number.isFinite(value) ? " " + unit : ""}`]);
    }
    if (panels.some((panel) => panel.key === "residual")) {
      const r = p < 0 ? NaN : maps.residual[p];
      rows.push(["Residual", Number.isFinite(r) ? `${num(r)} a.u.${about.sigma ? ` (${num(r / about.sigma, 2)} σ)` : ""}` : "–"]);
    }
    const amplitude = about.maps.find((m) => m.key === about.amplitude);
    if (about.sigma && amplitude) rows.push([`${amplitude.name}/σ`, p < 0 ? "–" : num(maps[amplitude.key][p] / about.sigma, 2)]);
    rows.push(["Flag", words]);
    $("numbers").replaceChildren(...rows.map(([k, v]) => make("tr", {}, make("th", { scope: "row" }, k), make("td", {}, v))));
    for (const panel of panels) {
      if (panel.key === "status") panel.now.textContent = p < 0 ? "" : s.name;
      else panel.now.textContent = p < 0 ? "" : num(panel.value(p));
      if (panel.key === "image") {
        panel.name.textContent = `Image at ${about.labels[state.image]}`;
        panel.slider.value = about.order.indexOf(state.image);
      }
    }
    curve(p);
    marks(p);
    clearTimeout(saying);
    saying = setTimeout(() => ($("say").textContent = rows.map((r) => r.join(" ")).join(", ")), 400);
  }

  if (!about.values.length) $("curve").parentElement.hidden = true; // maps without a signal model
  function curve(p) {
    if (!about.values.length) return;
    const chart = $("curve"), W = 560, H = 350, L = 62, R = 548, U = 14, D = 302;
    chart.replaceChildren();
    const line = [], points = [];
    let half = null;
    if (p >= 0) about.values.forEach((t, i) => points.push([t, measured(i, p), i]));
    if (p >= 0 && table) {
      stencil(p);
      table.points.forEach((t, i) => line.push([t, fitted(i, p)]));
      half = line.every(([, v]) => Number.isFinite(v)) ? band(p) : null;
    }
    const edge = (i, sign) => { // of the band
      const v = modulus(line[i][1]) + sign * half[i];
      return table.magnitude ? Math.max(0, v) : v;
    };
    $("legend-band").hidden = !half;
    const good = points.filter(([, v]) => Number.isFinite(v)), drawn = line.filter(([, v]) => Number.isFinite(v));
    const values = [...good.map((q) => q[1]), ...drawn.map((q) => modulus(q[1])), ...(half ? half.flatMap((_, i) => [edge(i, 1), edge(i, -1)]) : [])];
    const note = $("curve-note");
    note.textContent =
      p < 0 ? "There is no curve at this voxel." :
      images && !imageBytes ? "Loading the images …" :
      images && !good.length ? "This page does not contain the measured points of this slice." :
      !images ? "This page does not contain the images: only the fitted curve is shown." : "";
    if (!values.length) {
      svg(chart, "text", { x: W / 2, y: H / 2, "text-anchor": "middle" }, "no signal to show");
      return;
    }
    let low = Math.min(0, ...values), high = Math.max(0, ...values);
    if (high === low) high = low + 1;
    const pad = 0.06 * (high - low);
    high += pad;
    if (low < 0) low -= pad;
    const end = Math.max(...about.values, ...(table ? table.points : [])) || 1;
    const X = (t) => L + ((R - L) * t) / end, Y = (v) => D - ((D - U) * (v - low)) / (high - low);
    for (const v of ticks(low, high, 5)) {
      svg(chart, "line", { class: "grid", x1: L, x2: R, y1: Y(v), y2: Y(v) });
      svg(chart, "text", { x: L - 7, y: Y(v) + 4, "text-anchor": "end" }, num(v, Math.abs(v) < 10 ? 2 : 3));
    }
    for (const t of ticks(0, end, 6)) {
      svg(chart, "line", { class: "axis", x1: X(t), x2: X(t), y1: D, y2: D + 5 });
      svg(chart, "text", { x: X(t), y: D + 20, "text-anchor": "middle" }, Number(t.toPrecision(6)).toLocaleString("en-US"));
    }
    svg(chart, "line", { class: "axis", x1: L, x2: R, y1: D, y2: D });
    if (low < 0) svg(chart, "line", { class: "axis", x1: L, x2: R, y1: Y(0), y2: Y(0) });
    svg(chart, "text", { x: (L + R) / 2, y: H - 8, "text-anchor": "middle" }, axisTitle);
    $("legend-line").style.display = !table || table.continuous ? "" : "none";
    $("legend-cross").style.display = !table || table.continuous ? "none" : "";
    if (half) {
      const at = (i, sign) => `${X(line[i][0]).toFixed(1)} ${Y(edge(i, sign)).toFixed(1)}`;
      const order = line.map((_, i) => i);
      if (table.continuous)
        svg(chart, "path", { class: "band95", d: `M${[...order.map((i) => at(i, 1)), ...order.reverse().map((i) => at(i, -1))].join("L")}Z` });
      else svg(chart, "path", { class: "band95 bars", d: order.map((i) => `M${at(i, 1)}L${at(i, -1)}`).join("") });
    }
    if (drawn.length && table.continuous) {
      let path = "";
      drawn.forEach(([t, v], i) => {
        const before = i ? drawn[i - 1] : null; // the corner where the modulus folds
        if (before && table.magnitude && before[1] * v < 0)
          path += `L${X(before[0] + ((t - before[0]) * before[1]) / (before[1] - v)).toFixed(1)} ${Y(0).toFixed(1)}`;
        path += `${i ? "L" : "M"}${X(t).toFixed(1)} ${Y(modulus(v)).toFixed(1)}`;
      });
      svg(chart, "path", { class: "fit", d: path });
    }
    for (const [t, v, i] of good) {
      if (about.sigma) svg(chart, "line", { class: "whisker", x1: X(t), x2: X(t), y1: Y(v - about.sigma), y2: Y(v + about.sigma) });
      const dot = svg(chart, "circle", { class: i === state.image ? "point current" : "point", cx: X(t), cy: Y(v), r: i === state.image ? 5.5 : 4 });
      svg(dot, "title", {}, `${about.labels[i]}: ${num(v, 4)}`);
      dot.addEventListener("click", () => {
        state.image = i;
        draw();
      });
    }
    if (drawn.length && !table.continuous) { // the model is known at the images only: crosses, on top of the points
      const cross = ([t, v]) => `M${(X(t) - 7).toFixed(1)} ${Y(modulus(v)).toFixed(1)}h14M${X(t).toFixed(1)} ${(Y(modulus(v)) - 7).toFixed(1)}v14`;
      svg(chart, "path", { class: "fit", d: drawn.map(cross).join("") });
    }
    const value = withSd(maps[main.key][p], maps["sd " + main.key] ? maps["sd " + main.key][p] : NaN);
    chart.setAttribute("aria-label", `Signal over ${about.axis.title}: ${good.length} measured points${drawn.length ? " and the fitted curve" : ""}; ${main.name} ${value} ${main.unit}`);
  }

  function marks(p) { // where this voxel is in the charts below
    for (const chart of document.querySelectorAll("svg[data-of]")) {
      let mark = chart.querySelector(".here");
      if (!mark) mark = svg(chart, chart.dataset.y0 ? "circle" : "line", { class: "here" });
      const d = chart.dataset, value = p < 0 ? NaN : maps[d.of][p], sd = p < 0 || !maps["sd " + d.of] ? NaN : relative(d.of, p);
      const share = d.y0 ? Math.log(value / d.x0) / Math.log(d.x1 / d.x0) : (value - d.x0) / (d.x1 - d.x0);
      const up = d.y0 ? Math.log(sd / d.y0) / Math.log(d.y1 / d.y0) : 0;
      const visible = share >= 0 && share <= 1 && up >= 0 && up <= 1;
      mark.style.display = visible ? "" : "none";
      if (!visible) continue;
      const x = share * d.width;
      if (d.y0) Object.entries({ cx: x, cy: d.height * (1 - up), r: 5 }).forEach(([k, v]) => mark.setAttribute(k, v));
      else Object.entries({ x1: x, x2: x, y1: 0, y2: d.height }).forEach(([k, v]) => mark.setAttribute(k, v));
    }
  }

  // ---- controls -------------------------------------------------------------------------------------------------
  const watch = new ResizeObserver((entries) => {
    const changed = new Set(entries.map((e) => e.target.firstChild));
    requestAnimationFrame(() => views.filter((v) => changed.has(v.canvas)).forEach(paint));
  });
  const choice = $("planes");
  const choose = (label, on, act) => {
    const radio = make("input", { type: "radio", name: "plane" });
    radio.checked = on;
    radio.addEventListener("change", act);
    choice.append(make("label", {}, radio, make("span", {}, label)));
  };
  about.planes.forEach((plane, i) =>
    choose(plane.name || "slices", i === 0, () => {
      Object.assign(state, { plane, three: false });
      arrange();
    })
  );
  if (about.planes.length > 1) {
    choose("all three", false, () => {
      Object.assign(state, { plane: about.planes[0], three: true });
      arrange();
    });
  } else choice.hidden = true;
  const tools = $("tools");
  for (const [label, drawing] of [["voxel", false], ["region", true]]) {
    const radio = make("input", { type: "radio", name: "tool", value: label });
    radio.checked = !drawing;
    radio.addEventListener("change", () => {
      state.drawing = drawing;
      figures();
    });
    tools.append(make("label", {}, radio, make("span", {}, drawing ? "draw a region" : "select a voxel")));
  }
  $("region-clear").addEventListener("click", clearRegion);
  $("slice").addEventListener("input", (e) => {
    voxel[state.plane.axes[2]] = Number(e.target.value);
    draw();
  });
  function rewindow() {
    const hero = panels.find((p) => p.key === state.main), low = $("low").valueAsNumber, high = $("high").valueAsNumber;
    const fits = high > low && (!hero.log || (low >= 0 && high > 0));
    $("high").setCustomValidity(fits ? "" : "The upper end must exceed the lower one.");
    if (!fits) return $("high").reportValidity();
    Object.assign(hero, { low, high });
    scales();
    draw();
  }
  $("low").addEventListener("change", rewindow);
  $("high").addEventListener("change", rewindow);
  $("reset").addEventListener("click", () => {
    const hero = panels.find((p) => p.key === state.main);
    [hero.low, hero.high] = hero.window;
    $("high").setCustomValidity("");
    arrange();
  });
  viewer.addEventListener("keydown", (e) => {
    if (e.key === "Escape" && region.n) return clearRegion();
    if (e.target.matches("input, button") || e.ctrlKey || e.metaKey || e.altKey) return;
    const [right, down, through] = state.plane.axes, [flipX, flipY] = state.plane.flips;
    const x = flipX ? -1 : 1, y = flipY ? -1 : 1, last = nSlices() - 1;
    const aside = { ArrowLeft: [right, -x], ArrowRight: [right, x], ArrowUp: [down, -y], ArrowDown: [down, y] };
    const slices = { ArrowUp: 1, ArrowDown: -1, PageUp: 1, PageDown: -1, Home: -last, End: last };
    const later = { ArrowLeft: -1, ArrowRight: 1 };
    if (e.shiftKey && aside[e.key]) move(...aside[e.key]);
    else if (!e.shiftKey && slices[e.key] && last > 0) move(through, slices[e.key]);
    else if (!e.shiftKey && later[e.key] && images) {
      state.image = about.order[clamp(about.order.indexOf(state.image) + later[e.key], 0, about.values.length - 1)];
      draw();
    } else return;
    e.preventDefault();
  });
  $("help-slices").hidden = Math.max(...about.planes.map((p) => shape[p.axes[2]])) < 2;
  $("help-images").hidden = !images;

  document.documentElement.classList.add("live");
  viewer.hidden = false;
  arrange();
  if (images) {
    await readImages();
    draw();
  }
  viewer.dataset.ready = "1";
})().catch((error) => {
  document.documentElement.classList.remove("live");
  document.getElementById("viewer").hidden = true;
  document.getElementById("too-old").hidden = false;
  throw error;
});

for (const button of document.querySelectorAll("button[data-copy]")) {
  button.hidden = false;
  button.addEventListener("click", async () => {
    const source = document.getElementById(button.dataset.copy);
    try {
      await navigator.clipboard.writeText(source.innerText.trim());
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(source); // without access to the clipboard
      button.textContent = "Selected: press Ctrl+C";
    }
  });
}
