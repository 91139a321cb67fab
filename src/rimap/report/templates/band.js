"use strict";
// The 95 % band of a fitted curve, from the derivatives of the signal in its parameters.

const NORMAL_95 = 1.959964; // half the width of the central 95 % of a normal distribution, in standard deviations

// The inverse of a small symmetric matrix by elimination with pivots; null if it has none.
function inverseOf(matrix) {
  const n = matrix.length, size = matrix.map((row, i) => Math.sqrt(row[i]));
  if (!size.every((x) => Number.isFinite(x) && x > 0)) return null;
  // Scaled to a diagonal of ones, so that one tolerance serves parameters of any unit.
  const rows = matrix.map((row, i) => [...row.map((x, j) => x / (size[i] * size[j])), ...row.map((_, j) => (i === j ? 1 : 0))]);
  for (let k = 0; k < n; k++) {
    const best = rows.slice(k).reduce((b, row, i) => (Math.abs(row[k]) > Math.abs(rows[b][k]) ? k + i : b), k);
    [rows[k], rows[best]] = [rows[best], rows[k]];
    const pivot = rows[k][k];
    if (!(Math.abs(pivot) > 1e-9)) return null;
    rows[k] = rows[k].map((x) => x / pivot);
    rows.forEach((row, i) => {
      const factor = row[k];
      if (i !== k && factor) rows[i] = row.map((x, j) => x - factor * rows[k][j]);
    });
  }
  return rows.map((row, i) => row.slice(n).map((x, j) => x / (size[i] * size[j])));
}

function informationOf(rows, sigma) {
  const n = rows[0].length, sum = Array.from({ length: n }, () => new Array(n).fill(0));
  for (const row of rows) for (let i = 0; i < n; i++) for (let j = 0; j < n; j++) sum[i][j] += (row[i] * row[j]) / (sigma * sigma);
  return sum;
}

// Half the width of the band at each point of the curve; null if the data do not determine it.
//   atImages, atPoints: a row of derivatives of the signal for each image and for each point of the curve
//   sigma:  noise of the images
//   time:   { at, sd } the column of the relaxation time, and its standard deviation in the map
//   fields: the same of the fields. A field that the map knows better than this voxel alone does (because it is smooth) is
//           taken as known to that extent; how parameters depend on each other then follows from the information.
// The covariance is scaled so that the time has the standard deviation of the map, whatever its source.
function bandOf(atImages, atPoints, sigma, time, fields) {
  const information = informationOf(atImages, sigma);
  const alone = inverseOf(information);
  if (!alone && !fields.length) return null;
  for (const { at, sd } of fields) {
    if (!(sd > 0)) return null;
    const more = 1 / (sd * sd) - (alone ? 1 / alone[at][at] : 0);
    if (more > 0) information[at][at] += more;
  }
  const covariance = inverseOf(information);
  if (!covariance || !(time.sd > 0)) return null;
  const scale = (time.sd * time.sd) / covariance[time.at][time.at];
  return atPoints.map((row) => {
    const variance = row.reduce((sum, x, i) => sum + row.reduce((s, y, j) => s + covariance[i][j] * x * y, 0), 0);
    return NORMAL_95 * Math.sqrt(Math.max(0, variance * scale));
  });
}
