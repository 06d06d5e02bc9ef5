// An episode on a canvas, with its routing weights and LPC as timelines. Everything is drawn here: no step asks the
// kernel. In a notebook this is an anywidget (player.py); in a report, `mount` is called with the same data.
//
// Read from the model: `episode` and `beside` (scenes as replay.py makes them; `beside` may be empty), `problem`.
// Written to the model: `lesion`, "layer:expert" when an expert is clicked ("" for none), where `can_lesion` is true.

const OBJECT = { EMPTY: 1, WALL: 2, FLOOR: 3, DOOR: 4, KEY: 5, BALL: 6, BOX: 7, GOAL: 8, LAVA: 9 };
const COLORS = ["#e03131", "#2f9e44", "#1c7ed6", "#9c36b5", "#f2b705", "#868e96"]; // minigrid's order of color numbers
const SPEEDS = [1, 2, 4, 8, 15, 30, 60];
const LAYER_HEIGHT = 44, LPC_HEIGHT = 56, GAP = 18, LEFT = 34;

function element(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name === "style") node.style.cssText = value;
    else if (name in node) node[name] = value;
    else node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}

function canvasOf(width, height) {
  const scale = Math.min(window.devicePixelRatio || 1, 2);
  const canvas = element("canvas", { style: `width:${width}px;height:${height}px` });
  canvas.width = Math.round(width * scale);
  canvas.height = Math.round(height * scale);
  const context = canvas.getContext("2d");
  context.scale(scale, scale);
  return [canvas, context];
}

function theme(el) {
  const color = getComputedStyle(el).color; // in whatever color space: a pixel tells how light it is
  const [, context] = canvasOf(1, 1);
  context.fillStyle = color;
  context.fillRect(0, 0, 1, 1);
  const [red, green, blue] = context.getImageData(0, 0, 1, 1).data;
  const dark = red + green + blue > 380;
  return dark
    ? { text: color, floor: "#23272e", line: "#343a43", wall: "#6b7280", muted: "#8b949e", panel: "#2b3038" }
    : { text: color, floor: "#ffffff", line: "#e3e3e3", wall: "#5b6470", muted: "#6b7280", panel: "#f1f1f1" };
}

// ------------------------------------------------------------------------------------------------------ one level

/** Draws one scene: the level as it is before a step, the way walked so far, and the agent. */
class Board {
  constructor(scene, size, colors) {
    this.scene = scene;
    this.colors = colors;
    this.cell = Math.floor(Math.min(size / scene.width, size / scene.height));
    this.width = this.cell * scene.width;
    this.height = this.cell * scene.height;
    [this.canvas, this.context] = canvasOf(this.width, this.height);
    this.canvas.setAttribute("role", "img");
    this.canvas.setAttribute("aria-label", `the level: ${scene.mission}`);
    [this.still, this.stillContext] = canvasOf(this.width, this.height);
    this.drawStill();
  }

  drawStill() { // floor and walls, which never change
    const { scene, cell, stillContext: context, colors } = this;
    context.fillStyle = colors.floor;
    context.fillRect(0, 0, this.width, this.height);
    context.strokeStyle = colors.line;
    context.lineWidth = 1;
    for (let x = 0; x <= scene.width; x++) line(context, x * cell, 0, x * cell, this.height);
    for (let y = 0; y <= scene.height; y++) line(context, 0, y * cell, this.width, y * cell);
    context.fillStyle = colors.wall;
    scene.cells.forEach(([kind], index) => {
      if (kind === OBJECT.WALL) context.fillRect((index % scene.width) * cell, Math.floor(index / scene.width) * cell, cell, cell);
    });
  }

  /** The cells before a step: those of the start with all changes of earlier steps. */
  cellsAt(step) {
    if (this.cells === undefined || step < this.cellsStep) {
      this.cells = this.scene.cells.slice();
      this.cellsStep = 0;
      this.nextChange = 0;
    }
    const changes = this.scene.changes;
    while (this.nextChange < changes.length && changes[this.nextChange][0] < step) {
      const [, index, content] = changes[this.nextChange++];
      this.cells[index] = content;
    }
    this.cellsStep = step;
    return this.cells;
  }

  draw(step, layer) {
    const { scene, cell, context } = this;
    context.drawImage(this.still, 0, 0, this.width, this.height);
    this.cellsAt(step).forEach((content, index) => {
      if (content[0] > OBJECT.FLOOR) this.drawObject(content, (index % scene.width) * cell, Math.floor(index / scene.width) * cell);
    });
    this.drawPath(step, layer);
    const [x, y, direction] = scene.agent[step];
    this.drawAgent(x, y, direction);
    const hand = scene.hand[step];
    if (hand) this.drawObject(hand, x * cell + cell * 0.5, y * cell + cell * 0.02, cell * 0.5);
  }

  drawPath(step, layer) {
    const { scene, cell, context } = this;
    const middle = (index) => scene.agent[index].slice(0, 2).map((coordinate) => (coordinate + 0.5) * cell);
    context.lineCap = "round";
    context.lineWidth = Math.max(2, cell * 0.13);
    for (let index = 0; index < scene.agent.length - 1; index++) {
      const [x, y] = middle(index), [nextX, nextY] = middle(index + 1);
      context.globalAlpha = index < step ? 0.95 : 0.18;
      context.strokeStyle = scene.colors[strongest(scene.weights[layer][index])];
      if (x !== nextX || y !== nextY) line(context, x, y, nextX, nextY);
    }
    context.globalAlpha = 1;
  }

  drawAgent(x, y, direction) {
    const { cell, context } = this;
    context.save();
    context.translate((x + 0.5) * cell, (y + 0.5) * cell);
    context.rotate((direction * Math.PI) / 2);
    context.beginPath();
    context.moveTo(cell * 0.36, 0);
    context.lineTo(-cell * 0.26, cell * 0.27);
    context.lineTo(-cell * 0.26, -cell * 0.27);
    context.closePath();
    context.fillStyle = "#e8590c";
    context.strokeStyle = "#ffffff";
    context.lineWidth = Math.max(1, cell * 0.05);
    context.fill();
    context.stroke();
    context.restore();
  }

  drawObject([kind, color, state], left, top, size = this.cell) {
    const { context } = this;
    const at = (x, y) => [left + x * size, top + y * size];
    context.strokeStyle = context.fillStyle = COLORS[color] || "#888888";
    context.lineWidth = Math.max(1.2, size * 0.08);
    if (kind === OBJECT.DOOR) {
      if (state === 0) context.fillRect(...at(0.84, 0.04), size * 0.12, size * 0.92); // open
      else {
        context.globalAlpha = state === 2 ? 0.75 : 0.28;
        context.fillRect(...at(0.04, 0.04), size * 0.92, size * 0.92);
        context.globalAlpha = 1;
        context.strokeRect(...at(0.08, 0.08), size * 0.84, size * 0.84);
        if (state === 2) { context.fillStyle = "#111111"; context.fillRect(...at(0.62, 0.45), size * 0.18, size * 0.14); }
        else circle(context, ...at(0.76, 0.5), size * 0.07, true);
      }
    } else if (kind === OBJECT.KEY) {
      circle(context, ...at(0.5, 0.3), size * 0.15, false);
      line(context, ...at(0.5, 0.45), ...at(0.5, 0.85));
      line(context, ...at(0.5, 0.68), ...at(0.65, 0.68));
      line(context, ...at(0.5, 0.83), ...at(0.65, 0.83));
    } else if (kind === OBJECT.BALL) circle(context, ...at(0.5, 0.5), size * 0.3, true);
    else if (kind === OBJECT.BOX) {
      context.strokeRect(...at(0.2, 0.2), size * 0.6, size * 0.6);
      line(context, ...at(0.2, 0.5), ...at(0.8, 0.5));
    } else context.fillRect(...at(0.1, 0.1), size * 0.8, size * 0.8);
  }
}

function line(context, x, y, otherX, otherY) {
  context.beginPath();
  context.moveTo(x, y);
  context.lineTo(otherX, otherY);
  context.stroke();
}

function circle(context, x, y, radius, filled) {
  context.beginPath();
  context.arc(x, y, radius, 0, 2 * Math.PI);
  if (filled) context.fill();
  else context.stroke();
}

function strongest(weights) {
  return weights.indexOf(Math.max(...weights));
}

// ------------------------------------------------------------------------------------------------------- timelines

/** Draws each layer's weights as stacked bars over time, and the LPC; a click chooses the step. */
class Timelines {
  constructor(scene, width, colors, choose) {
    this.scene = scene;
    this.width = width;
    this.height = scene.weights.length * (LAYER_HEIGHT + GAP) + LPC_HEIGHT + GAP + 26;
    [this.canvas, this.context] = canvasOf(width, this.height);
    this.canvas.style.cursor = "crosshair";
    this.canvas.setAttribute("role", "img");
    this.canvas.setAttribute("aria-label", "routing weights and LPC over time");
    [this.still, this.stillContext] = canvasOf(width, this.height);
    this.colors = colors;
    this.drawStill();
    const seek = (event) => {
      const box = this.canvas.getBoundingClientRect();
      choose(Math.floor(((event.clientX - box.left) * (width / box.width) - LEFT) / this.perStep));
    };
    this.canvas.addEventListener("pointerdown", (event) => { this.canvas.setPointerCapture(event.pointerId); seek(event); });
    this.canvas.addEventListener("pointermove", (event) => { if (event.buttons) seek(event); });
  }

  get perStep() { return (this.width - LEFT - 6) / this.scene.agent.length; }

  drawStill() {
    const { scene, stillContext: context, colors, perStep } = this;
    const steps = scene.actions.length;
    context.clearRect(0, 0, this.width, this.height);
    context.font = "11px system-ui, sans-serif";
    context.textBaseline = "alphabetic";
    scene.weights.forEach((weights, layer) => {
      const top = layer * (LAYER_HEIGHT + GAP) + 13;
      context.fillStyle = colors.text;
      context.fillText(`layer ${layer}`, LEFT, top - 3);
      context.fillStyle = colors.panel;
      context.fillRect(LEFT, top, steps * perStep, LAYER_HEIGHT);
      for (let step = 0; step < steps; step++) {
        let bottom = top + LAYER_HEIGHT;
        weights[step].forEach((weight, expert) => {
          context.fillStyle = scene.colors[expert];
          context.fillRect(LEFT + step * perStep, bottom - weight * LAYER_HEIGHT, perStep + 0.4, weight * LAYER_HEIGHT);
          bottom -= weight * LAYER_HEIGHT;
        });
      }
      context.fillStyle = colors.muted;
      context.fillText("1", LEFT - 12, top + 8);
      context.fillText("0", LEFT - 12, top + LAYER_HEIGHT);
    });
    const top = scene.weights.length * (LAYER_HEIGHT + GAP) + 13;
    const most = Math.max(...scene.lpc, 1);
    context.fillStyle = colors.text;
    context.fillText("LPC (grey: something in hand)", LEFT, top - 3);
    context.fillStyle = colors.panel;
    scene.hand.forEach((hand, step) => {
      if (hand && step < steps) context.fillRect(LEFT + step * perStep, top, perStep + 0.4, LPC_HEIGHT);
    });
    context.strokeStyle = colors.text;
    context.lineWidth = 1.4;
    context.beginPath();
    scene.lpc.forEach((lpc, step) => {
      const y = top + LPC_HEIGHT * (1 - lpc / most);
      context.lineTo(LEFT + step * perStep, y);
      context.lineTo(LEFT + (step + 1) * perStep, y);
    });
    context.stroke();
    context.fillStyle = colors.muted;
    context.fillText(most.toFixed(0), 2, top + 8);
    context.fillText("0", LEFT - 12, top + LPC_HEIGHT);
    const ends = [0, 0]; // of the last name in each of two rows
    for (const [step, what] of scene.events) {
      const x = LEFT + (step + 0.5) * perStep, width = context.measureText(what).width;
      const left = Math.min(x + 5, this.width - width), row = ends.findIndex((end) => end + 4 < left);
      context.fillStyle = colors.text;
      context.fillText("▴", x - 4, top + LPC_HEIGHT + 10);
      if (row < 0) continue;
      context.fillStyle = colors.muted;
      context.fillText(what, left, top + LPC_HEIGHT + 11 + 12 * row);
      ends[row] = left + width;
    }
  }

  draw(step) {
    const { context, perStep } = this;
    context.clearRect(0, 0, this.width, this.height);
    context.drawImage(this.still, 0, 0, this.width, this.height);
    context.strokeStyle = this.colors.text;
    context.lineWidth = 1.5;
    context.strokeRect(LEFT + step * perStep, 11, Math.max(perStep, 2), this.height - 38);
  }
}

// ---------------------------------------------------------------------------------------------------------- player

class Player {
  constructor(model, el) {
    this.model = model;
    this.el = el;
    this.step = 0;
    this.layer = Math.max(0, (model.get("episode").weights || []).length - 1);
    this.speed = 4;
    this.playing = false;
    this.frames = 0;
    el.classList.add("rlmop-player");
    el.tabIndex = 0;
    el.addEventListener("keydown", (event) => this.press(event));
    this.build();
    this.tick = this.tick.bind(this);
    this.request = requestAnimationFrame(this.tick);
    this.onResize = () => { if (Math.abs(el.clientWidth - this.builtWidth) > 30) this.build(); };
    this.observer = new ResizeObserver(this.onResize);
    this.observer.observe(el);
  }

  get scene() { return this.model.get("episode"); }
  get beside() { const other = this.model.get("beside"); return other && other.agent ? other : null; }
  get last() { return Math.max(this.scene.agent.length, this.beside ? this.beside.agent.length : 0) - 1; }

  build() {
    const { el, scene } = this;
    el.replaceChildren();
    this.builtWidth = el.clientWidth || 900;
    if (!scene || !scene.agent) {
      el.append(element("p", { textContent: scene && scene.problem ? scene.problem : "Choose an episode." }));
      return;
    }
    const colors = theme(el);
    const width = this.builtWidth, isNarrow = width < 640;
    const boardSize = isNarrow ? Math.min(width - 8, 360) : this.beside ? Math.min(260, width * 0.3) : Math.min(360, width * 0.42);
    const scenes = [scene, ...(this.beside ? [this.beside] : [])];
    this.boards = scenes.map((each) => new Board(each, boardSize, colors));
    const boardsWidth = this.boards.reduce((sum, board) => sum + board.width + 16, 0);
    const timelinesWidth = isNarrow ? width - 8 : Math.max(260, Math.min(640, width - boardsWidth - 24));
    this.timelines = scenes.map((each) => new Timelines(each, timelinesWidth, colors, (step) => { this.pause(); this.show(step); }));

    const button = (text, title, click) => element("button", { type: "button", textContent: text, title, onclick: click });
    this.playButton = button("▶ Play", "play or pause (space)", () => this.toggle());
    this.slider = element("input", { type: "range", min: 0, max: this.last, value: this.step, title: "step (arrow keys)", oninput: () => { this.pause(); this.show(Number(this.slider.value)); } });
    this.slider.setAttribute("aria-label", "step");
    const speed = element("select", { title: "steps per second", onchange: () => { this.speed = Number(speed.value); } });
    speed.setAttribute("aria-label", "speed");
    for (const each of SPEEDS) speed.append(element("option", { value: each, textContent: `${each} steps/s`, selected: each === this.speed }));
    const layer = element("select", { title: "which layer's strongest expert colors the way", onchange: () => { this.layer = Number(layer.value); this.show(this.step); } });
    layer.setAttribute("aria-label", "layer");
    scene.weights.forEach((_, index) => layer.append(element("option", { value: index, textContent: `way: layer ${index}`, selected: index === this.layer })));
    const controls = element("div", { className: "rlmop-controls" }, this.playButton,
      button("◀", "one step back (left arrow)", () => { this.pause(); this.show(this.step - 1); }),
      button("▶", "one step on (right arrow)", () => { this.pause(); this.show(this.step + 1); }), this.slider, speed, layer);

    this.status = element("div", { className: "rlmop-status" });
    this.status.setAttribute("aria-live", "off");
    const boards = element("div", { className: "rlmop-boards" }, ...this.boards.map((board, place) =>
      element("figure", {}, board.canvas, ...(this.beside ? [element("figcaption", { textContent: place ? this.beside.title : "all experts" })] : []))));
    const lines = element("div", {}, this.timelines[0].canvas, ...(this.beside ? [this.timelines[1].canvas] : []));
    const mission = element("div", { className: "rlmop-mission" }, element("strong", { textContent: scene.mission }),
      ` (${scene.outcome}${this.beside ? `; ${this.beside.title}: ${this.beside.outcome}` : ""})`);
    el.append(mission, controls, this.status, element("div", { className: "rlmop-stage" }, boards, lines), this.legend());
    this.show(this.step);
  }

  legend() {
    const { scene } = this;
    const row = element("div", { className: "rlmop-legend" });
    const canLesion = this.model.get("can_lesion"), lesion = this.model.get("lesion");
    scene.names.forEach((names, layer) => {
      row.append(element("span", { textContent: `layer ${layer}` }));
      names.forEach((name, expert) => {
        const pair = `${layer}:${expert}`;
        const chip = element(canLesion ? "button" : "span", { className: "rlmop-chip", textContent: name });
        chip.prepend(element("i", { style: `background:${scene.colors[expert]}` }));
        if (canLesion) {
          chip.type = "button";
          chip.title = `play the same level without ${name} of layer ${layer}`;
          chip.setAttribute("aria-pressed", String(lesion === pair));
          chip.onclick = () => {
            this.model.set("lesion", lesion === pair ? "" : pair);
            this.model.save_changes();
            this.message.textContent = lesion === pair ? "" : ` playing without ${name} of layer ${layer} ...`;
          };
        }
        row.append(chip);
      });
    });
    this.message = element("span", { className: "rlmop-message", textContent: this.model.get("problem") || (canLesion ? " click an expert: the same level without it" : "") });
    row.append(this.message);
    return row;
  }

  show(step) {
    if (!this.boards) return;
    this.step = Math.max(0, Math.min(this.last, step));
    this.boards.forEach((board) => board.draw(Math.min(this.step, board.scene.agent.length - 1), this.layer));
    this.timelines.forEach((lines) => lines.draw(Math.min(this.step, lines.scene.agent.length - 1)));
    this.slider.value = this.step;
    const { scene } = this, ended = this.step >= scene.actions.length;
    const action = ended ? `the end: ${scene.outcome}` : scene.action_names[scene.actions[this.step]] || "unknown action";
    const sure = ended || !scene.sure.length ? "" : `, probability ${scene.sure[this.step].toFixed(2)}`;
    const cost = ended ? "" : `, LPC ${scene.lpc[this.step].toFixed(0)}`;
    this.status.textContent = `step ${Math.min(this.step, scene.actions.length)} of ${scene.actions.length}: ${action}${sure}${cost}`;
    this.frames += 1;
    this.el.dataset.step = this.step;
    this.el.dataset.frames = this.frames;
  }

  toggle() {
    if (this.playing) return this.pause();
    if (this.step >= this.last) this.show(0);
    this.playing = true;
    this.next = performance.now() + 1000 / this.speed;
    this.playButton.textContent = "❚❚ Pause";
  }

  pause() {
    this.playing = false;
    if (this.playButton) this.playButton.textContent = "▶ Play";
  }

  tick(now) {
    if (this.playing && now >= this.next) {
      const due = 1 + Math.floor((now - this.next) / (1000 / this.speed)); // late frames skip steps, not time
      this.next += (due * 1000) / this.speed;
      this.show(this.step + due);
      if (this.step >= this.last) this.pause();
    }
    this.request = requestAnimationFrame(this.tick);
  }

  press(event) {
    if (!this.boards || event.target.tagName === "SELECT") return;
    const moves = { ArrowLeft: -1, ArrowRight: 1, PageUp: -10, PageDown: 10 };
    if (event.key === " ") { if (event.target.tagName !== "BUTTON") this.toggle(); else return; }
    else if (event.key in moves) { this.pause(); this.show(this.step + moves[event.key]); }
    else if (event.key === "Home") { this.pause(); this.show(0); }
    else if (event.key === "End") { this.pause(); this.show(this.last); }
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  changed(resetStep) {
    this.pause();
    if (resetStep) { this.step = this.scene.start || 0; this.layer = Math.min(this.layer, (this.scene.weights || [0]).length - 1); }
    this.build();
  }

  remove() {
    cancelAnimationFrame(this.request);
    this.observer.disconnect();
  }
}

function render({ model, el }) {
  const player = new Player(model, el);
  player.changed(true);
  const onEpisode = () => player.changed(true), onBeside = () => player.changed(false);
  model.on("change:episode", onEpisode);
  model.on("change:beside", onBeside);
  model.on("change:problem", onBeside);
  return () => player.remove();
}

/** Show an episode without a kernel: in a report. */
export function mount(el, episode, beside = {}) {
  const values = { episode, beside, lesion: "", can_lesion: false, problem: "" };
  render({ model: { get: (name) => values[name], set() {}, on() {}, save_changes() {} }, el });
}

export default { render };
