'use strict';
for (const views of document.querySelectorAll('.views')) {
  const show = () => {
    for (const side of ['a', 'b']) {
      const kind = views.querySelector(`select[data-side="${side}"]`).value;
      for (const card of views.querySelectorAll('.card')) {
        let note = 'no image';
        for (const image of card.querySelectorAll('img')) {
          const chosen = image.dataset.kind === kind;
          if (side === 'a') image.className = '';
          if (!chosen) continue;
          note = image.dataset.note;
          // The same image on both sides is simply the whole image.
          if (!image.classList.contains('a')) image.classList.add(side);
        }
        card.querySelector('figcaption .' + side).textContent = note;
      }
    }
  };
  for (const select of views.querySelectorAll('select')) select.addEventListener('change', show);
  for (const range of views.querySelectorAll('input[type=range]'))
    range.addEventListener('input', () => range.parentElement.style.setProperty('--cut', range.value + '%'));
  show();
}

const canvas = document.getElementById('space');
if (canvas) {
  const data = JSON.parse(document.getElementById('paths').textContent);
  const all = data.paths.flatMap(path => path.centers.flat());
  const middle = [0, 1, 2].map(i => all.reduce((sum, p) => sum + p[i], 0) / all.length);
  const reach = Math.max(1e-9, ...all.map(p => Math.hypot(...p.map((x, i) => x - middle[i]))));
  let target = middle, size = reach, around = 0.6, above = 0.5;
  const project = p => {
    const d = p.map((x, i) => x - target[i]);
    const x = d[0] * Math.cos(around) - d[1] * Math.sin(around);
    const y = d[0] * Math.sin(around) + d[1] * Math.cos(around);
    const zoom = 0.6 * Math.min(canvas.width, canvas.height) / size;
    return [canvas.width / 2 + zoom * x,
            canvas.height / 2 - zoom * (d[2] * Math.cos(above) + y * Math.sin(above))];
  };
  const draw = () => {
    const style = getComputedStyle(document.documentElement), pen = canvas.getContext('2d');
    pen.clearRect(0, 0, canvas.width, canvas.height);
    pen.font = '12px system-ui';
    const line = points => {
      pen.beginPath();
      points.forEach((p, i) => { const q = project(p); if (i) pen.lineTo(...q); else pen.moveTo(...q); });
      pen.stroke();
    };
    // The truth below, broad and pale; the recovered paths on it.
    [...data.paths.entries()].reverse().forEach(([group, path]) => {
      pen.strokeStyle = pen.fillStyle = style.getPropertyValue('--c' + group).trim();
      path.centers.forEach((view, v) => {
        pen.globalAlpha = group ? 0.5 : 1;
        pen.lineWidth = group ? 6 : 1.8;
        line(view);
        const start = project(view[0]);  // a dot where the exposure begins
        pen.beginPath(); pen.arc(...start, 3, 0, 7); pen.fill();
        pen.globalAlpha = 0.35;
        pen.lineWidth = 1;
        const eye = view[view.length >> 1], axes = path.axes[v], far = 0.12 * reach;
        const corner = (sx, sy) => [0, 1, 2].map(i =>
          eye[i] + far * (axes[2][i] + 0.5 * sx * axes[0][i] + 0.32 * sy * axes[1][i]));
        const corners = [corner(-1, -1), corner(1, -1), corner(1, 1), corner(-1, 1)];
        line([...corners, corners[0]]);
        corners.forEach(c => line([eye, c]));
        if (group) return;
        const at = project(eye);
        pen.globalAlpha = 0.8;
        pen.fillText(data.names[v], at[0] + 6, at[1] - 6);
      });
    });
    pen.globalAlpha = 1;
  };
  let held = null;
  canvas.addEventListener('pointerdown', e => {
    held = [e.clientX, e.clientY];
    canvas.setPointerCapture(e.pointerId);
  });
  canvas.addEventListener('pointerup', () => { held = null; });
  canvas.addEventListener('pointermove', e => {
    if (!held) return;
    around += (e.clientX - held[0]) * 0.008;
    above = Math.max(-1.57, Math.min(1.57, above + (e.clientY - held[1]) * 0.008));
    held = [e.clientX, e.clientY];
    draw();
  });
  canvas.addEventListener('wheel', e => { e.preventDefault(); size *= Math.exp(e.deltaY * 0.001); draw(); },
                          { passive: false });
  canvas.addEventListener('dblclick', e => {
    const box = canvas.getBoundingClientRect();
    const x = (e.clientX - box.left) * canvas.width / box.width, y = (e.clientY - box.top) * canvas.height / box.height;
    let best = 30;
    target = middle; size = reach;
    for (const view of data.paths[0].centers) {
      const eye = view[view.length >> 1], at = project(eye), off = Math.hypot(at[0] - x, at[1] - y);
      if (off < best) { best = off; target = eye; size = 0.15 * reach; }
    }
    draw();
  });
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', draw);
  draw();
}
