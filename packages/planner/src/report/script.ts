/**
 * The page's script. The page is complete without it; it tells the values of the heatmap, opens what is folded before
 * printing, and copies the command. It reads nothing but the page.
 */
export const SCRIPT = `'use strict';
for (const map of document.querySelectorAll('.heat')) {
  const rows = map.dataset.values.split(';').map((row) => row.split(' ').map(Number));
  const left = Number(map.dataset.left), top = Number(map.dataset.top), cell = Number(map.dataset.cell);
  const svg = map.querySelector('svg'), cursor = map.querySelector('.cursor'), readout = map.nextElementSibling;
  const last = rows.length - 1;
  let x = 0, y = 0;
  const name = (i) => (i === last ? 'output of the last layer' : 'input of layer ' + i);
  const show = () => {
    cursor.setAttribute('x', left + x * cell);
    cursor.setAttribute('y', top + y * cell);
    cursor.setAttribute('visibility', 'visible');
    const value = rows[y][x].toFixed(4).replace('-', '\\u2212');
    readout.textContent = name(y) + ', ' + name(x) + ': cosine ' + value;
  };
  map.addEventListener('pointermove', (event) => {
    const box = svg.getBoundingClientRect(), scale = svg.viewBox.baseVal.width / box.width;
    const i = Math.floor(((event.clientX - box.left) * scale - left) / cell);
    const j = Math.floor(((event.clientY - box.top) * scale - top) / cell);
    if (i < 0 || j < 0 || i > last || j > last || (i === x && j === y && cursor.getAttribute('visibility') === 'visible')) return;
    x = i; y = j;
    show();
  });
  map.addEventListener('focus', show);
  map.addEventListener('keydown', (event) => {
    const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (step === undefined) return;
    event.preventDefault();
    x = Math.min(last, Math.max(0, x + step[0]));
    y = Math.min(last, Math.max(0, y + step[1]));
    show();
  });
}
let opened = [];
addEventListener('beforeprint', () => {
  opened = [...document.querySelectorAll('details:not([open])')];
  for (const element of opened) element.open = true;
});
addEventListener('afterprint', () => {
  for (const element of opened) element.open = false;
});
if (navigator.clipboard) {
  for (const button of document.querySelectorAll('[data-copy]')) {
    button.hidden = false;
    button.addEventListener('click', async () => {
      await navigator.clipboard.writeText(document.getElementById(button.dataset.copy).textContent);
      button.textContent = 'Copied';
    });
  }
}
`;
