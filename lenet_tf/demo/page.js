// Draws, asks the server what the drawing is, and shows what each network answers.

const SENT = 280; // side in pixels of a drawing that is sent
const SENT_PICTURE = 512; // longest side of a picture from a file
const MOST_BARS = 10;

const find = (selector, root = document) => root.querySelector(selector);
const board = find("#board");

// What was done, for undo: a stroke {width, points} in shares of the board, or a
// {picture}. A picture takes the place of all before it, and a stroke that of a picture.
let deeds = [];
let stroke = null; // the one that is being drawn

function shown() {
  const last = deeds.findLastIndex((deed) => deed.picture);
  if (last >= 0 && last === deeds.length - 1) return { picture: deeds[last].picture };
  return { strokes: deeds.slice(last + 1) };
}

function paint(canvas) {
  const context = canvas.getContext("2d");
  const side = canvas.width;
  context.fillStyle = "#000";
  context.fillRect(0, 0, side, side);
  const { picture, strokes } = shown();
  if (picture) {
    const scale = side / Math.max(picture.width, picture.height);
    const [width, height] = [picture.width * scale, picture.height * scale];
    context.drawImage(picture, (side - width) / 2, (side - height) / 2, width, height);
    return;
  }
  context.strokeStyle = context.fillStyle = "#fff";
  context.lineCap = context.lineJoin = "round";
  for (const { width, points } of strokes) {
    const at = points.map(([x, y]) => [x * side, y * side]);
    context.lineWidth = width * side;
    context.beginPath();
    if (at.length === 1) {
      context.arc(...at[0], (width * side) / 2, 0, 2 * Math.PI);
      context.fill();
      continue;
    }
    context.moveTo(...at[0]);
    for (let i = 1; i < at.length - 1; i++) {
      const [x, y] = at[i];
      const [nextX, nextY] = at[i + 1];
      context.quadraticCurveTo(x, y, (x + nextX) / 2, (y + nextY) / 2);
    }
    context.lineTo(...at.at(-1));
    context.stroke();
  }
}

// The canvas to send: a picture keeps its proportions, and what is transparent in it.
function snapshot() {
  const canvas = document.createElement("canvas");
  const { picture } = shown();
  if (!picture) {
    canvas.width = canvas.height = SENT;
    paint(canvas);
    return canvas;
  }
  const longest = Math.max(picture.width, picture.height);
  const scale = Math.min(1, SENT_PICTURE / longest);
  canvas.width = Math.max(1, Math.round(picture.width * scale));
  canvas.height = Math.max(1, Math.round(picture.height * scale));
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(picture, 0, 0, canvas.width, canvas.height);
  return canvas;
}

// Asking: one request at a time, and one more if the drawing has changed since.

let asking = false;
let stale = false;

function changed() {
  paint(board);
  if (deeds.length === 0) {
    problem("");
    calm("Nothing is drawn yet");
    return;
  }
  stale = true;
  if (!asking) ask();
}

async function ask() {
  asking = true;
  while (stale && deeds.length) {
    stale = false;
    try {
      const answers = await classify(snapshot());
      if (!deeds.length) break; // cleared in the meantime
      problem("");
      views.forEach((view, i) => view.show(answers[i]));
      if (!stroke && !stale) speak();
    } catch (error) {
      if (!deeds.length) break;
      calm("No answer");
      // A stroke has just begun when it is too small to be seen.
      if (!stroke || !error.answered) problem(error.message);
    }
  }
  asking = false;
}

async function classify(canvas) {
  const body = await new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
  let response;
  try {
    response = await fetch("classify", {
      method: "POST",
      headers: { "Content-Type": "image/png" },
      body,
    });
  } catch {
    throw new Error("The server does not answer. Does the program still run?");
  }
  const answer = await response.json();
  if (response.ok) return answer;
  throw Object.assign(new Error(sentence(answer.error)), { answered: true });
}

const sentence = (text) => text[0].toUpperCase() + text.slice(1) + ".";

function problem(text) {
  const line = find("#problem");
  if (line.textContent !== text) line.textContent = text;
  line.hidden = !text;
}

function calm(text) {
  views.forEach((view) => view.calm(text));
  find("#spoken").textContent = "";
}

// To those who do not see the bars: only when a stroke is done.
function speak() {
  find("#spoken").textContent = views.map((view) => view.spoken).join(" ");
}

// Showing.

const percent = (p) => `${(100 * p).toFixed(1)} %`;

class View {
  constructor({ name, classes }) {
    this.name = name;
    this.classes = classes;
    this.root = find("#run").content.cloneNode(true).firstElementChild;
    find("h2", this.root).textContent = name;
    const list = find(".bars", this.root);
    this.bars = classes.slice(0, MOST_BARS).map(() => {
      const bar = find("#bar").content.cloneNode(true).firstElementChild;
      list.append(bar);
      return bar;
    });
  }

  calm(text) {
    this.answer(text, true);
    this.bars.forEach((bar, i) => this.bar(bar, i, 0, false));
    for (const canvas of this.root.querySelectorAll(".tiles canvas")) {
      canvas.getContext("2d").clearRect(0, 0, canvas.width, canvas.height);
    }
    this.spoken = "";
  }

  show({ probabilities, image, maps }) {
    const ranked = probabilities.map((p, i) => i).sort((i, j) => probabilities[j] - probabilities[i]);
    const [first] = ranked;
    const share = percent(probabilities[first]);
    this.answer(this.classes[first], false);
    this.spoken = `${this.name}: ${this.classes[first]}, ${share}.`;
    // Of many classes the likeliest, of few all in their order.
    const order = probabilities.length > MOST_BARS ? ranked : probabilities.map((p, i) => i);
    this.bars.forEach((bar, i) => this.bar(bar, order[i], probabilities[order[i]], order[i] === first));
    this.tiles(image, `Input: ${image.width}×${image.height}`);
    for (const layer of maps) {
      const what = `${layer.name.toUpperCase()}: ${layer.count} maps, ${layer.width}×${layer.height}`;
      this.tiles(layer, what);
    }
  }

  answer(text, isCalm) {
    const line = find(".answer", this.root);
    line.textContent = text;
    line.classList.toggle("calm", isCalm);
  }

  bar(bar, i, p, isFirst) {
    find(".name", bar).textContent = this.classes[i];
    find(".fill", bar).style.transform = `scaleX(${p})`;
    find(".share", bar).textContent = percent(p);
    bar.classList.toggle("first", isFirst);
  }

  tiles({ name, count, width, height, channels, pixels }, what) {
    const figure = find(`.${name}`, this.root);
    const box = find(".tiles", figure);
    while (box.children.length < count) box.append(document.createElement("canvas"));
    box.setAttribute("aria-label", what);
    find("figcaption", figure).textContent = what;
    const bytes = Uint8Array.from(atob(pixels), (character) => character.charCodeAt(0));
    [...box.children].forEach((canvas, tile) => {
      const data = new ImageData(width, height);
      for (let i = 0; i < width * height; i++) {
        const from = (tile * width * height + i) * channels;
        for (let c = 0; c < 3; c++) data.data[4 * i + c] = bytes[from + (channels === 3 ? c : 0)];
        data.data[4 * i + 3] = 255;
      }
      if (canvas.width !== width || canvas.height !== height) {
        [canvas.width, canvas.height] = [width, height];
      }
      canvas.getContext("2d").putImageData(data, 0, 0);
    });
  }
}

let views = [];

async function start() {
  try {
    const response = await fetch("runs");
    views = (await response.json()).map((run) => new View(run));
  } catch {
    problem("The server does not answer. Load the page again when it runs.");
    return;
  }
  find("#runs").replaceChildren(...views.map((view) => view.root));
  const names = views.flatMap((view) => view.classes);
  find("#runs").classList.toggle("long", names.some((name) => name.length > 3));
  if (!names.every((name) => /^\d$/.test(name))) {
    find("h1").textContent = "Draw one of these";
    document.title = "lenet_tf: draw";
  }
  changed();
}

// Drawing, by pointer events: mouse, touch and pen alike.

function place(event) {
  const box = board.getBoundingClientRect();
  return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
}

board.addEventListener("pointerdown", (event) => {
  if (!event.isPrimary || event.button !== 0) return;
  event.preventDefault();
  board.setPointerCapture(event.pointerId);
  stroke = { width: find("#pen").value / 100, points: [place(event)] };
  deeds.push(stroke);
  changed();
});

board.addEventListener("pointermove", (event) => {
  if (!stroke || !event.isPrimary) return;
  const events = event.getCoalescedEvents?.() ?? [];
  stroke.points.push(...(events.length ? events : [event]).map(place));
  changed();
});

for (const name of ["pointerup", "pointercancel"]) {
  board.addEventListener(name, (event) => {
    if (!stroke || !event.isPrimary) return;
    stroke = null;
    changed(); // asks once more, now that the stroke is whole
  });
}

function undo() {
  stroke = null;
  deeds.pop();
  changed();
}

function clear() {
  stroke = null;
  deeds = [];
  changed();
}

find("#undo").addEventListener("click", undo);
find("#clear").addEventListener("click", clear);
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" || event.key === "Delete") clear();
  else if ((event.ctrlKey || event.metaKey) && !event.shiftKey && event.key === "z") undo();
  else return;
  event.preventDefault();
});

// Pictures from files.

async function open(file) {
  if (!file) return;
  try {
    deeds.push({ picture: await createImageBitmap(file) });
    changed();
  } catch {
    problem(`${file.name} is not a picture that the browser can read.`);
  }
}

find("#file").addEventListener("change", (event) => {
  open(event.target.files[0]);
  event.target.value = ""; // so that the same file can be chosen again
});

document.addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.add("dropping");
});
document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) document.body.classList.remove("dropping");
});
document.addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("dropping");
  open(event.dataTransfer.files[0]);
});

start();
