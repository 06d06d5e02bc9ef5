// A figure that can be clicked: a picture, and the panels of it that are divided into rows, columns or cells.
//
// Read from the model: `source` (a data URL), `description`, `width` (CSS pixels), `panels`: [{name, box: [left, top,
// right, bottom] as shares of the picture, x: edges, y: edges, as shares of the panel from its left and top}].
// Written to the model: `clicked` {panel, column, row, count}. What `chosen` names, and then what was clicked, stays marked.
// By keyboard: arrows move the mark, beyond a panel's edge into the panel before or after it; Enter or Space clicks there.

function render({ model, el }) {
  const holder = document.createElement("div");
  holder.className = "rlmop-picture";
  const image = document.createElement("img");
  const mark = document.createElement("div"), kept = document.createElement("div");
  mark.className = "rlmop-mark";
  kept.className = "rlmop-mark rlmop-chosen";
  holder.append(image, kept, mark);
  el.append(holder);
  let count = 0, at = null;  // where the keyboard's mark is: {panel, column, row}
  holder.tabIndex = 0;
  holder.setAttribute("role", "group");

  const draw = () => {
    image.src = model.get("source");
    image.alt = model.get("description");
    holder.setAttribute("aria-label", `${model.get("description")}. Arrow keys move, Enter chooses.`);
    holder.style.width = `${model.get("width")}px`;
    mark.style.display = "none";
    const { panel: name, column, row } = model.get("chosen"), panel = model.get("panels").find((each) => each.name === name);
    if (panel) put(kept, { panel, column, row });
    else kept.style.display = "none";
  };

  const put = (node, { panel, column, row }) => {
    const [left, top, right, bottom] = panel.box;
    const across = (share) => 100 * (left + share * (right - left)), down = (share) => 100 * (top + share * (bottom - top));
    node.style.left = `${across(panel.x[column])}%`;
    node.style.width = `${across(panel.x[column + 1]) - across(panel.x[column])}%`;
    node.style.top = `${down(panel.y[row])}%`;
    node.style.height = `${down(panel.y[row + 1]) - down(panel.y[row])}%`;
    node.style.display = "block";
  };

  const find = (event) => {
    const frame = image.getBoundingClientRect();
    const x = (event.clientX - frame.left) / frame.width, y = (event.clientY - frame.top) / frame.height;
    for (const panel of model.get("panels")) {
      const [left, top, right, bottom] = panel.box;
      if (x < left || x > right || y < top || y > bottom) continue;
      const place = (edges, share) => edges.findIndex((edge, index) => index + 1 < edges.length && share >= edge && share < edges[index + 1]);
      const column = place(panel.x, (x - left) / (right - left)), row = place(panel.y, (y - top) / (bottom - top));
      if (column >= 0 && row >= 0) return { panel, column, row };
    }
    return null;
  };

  holder.addEventListener("pointermove", (event) => {
    const found = find(event);
    holder.style.cursor = found ? "pointer" : "default";
    if (found) put(mark, found);
    else mark.style.display = "none";
  });
  holder.addEventListener("pointerleave", () => { mark.style.display = "none"; });
  const choose = (found) => {
    at = found;
    put(kept, found);
    model.set("clicked", { panel: found.panel.name, column: found.column, row: found.row, count: ++count });
    model.save_changes();
  };
  holder.addEventListener("click", (event) => {
    const found = find(event);
    if (found) choose(found);
  });

  const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  holder.addEventListener("keydown", (event) => {
    const panels = model.get("panels"), move = moves[event.key], { panel: name, column, row } = model.get("chosen");
    if (!panels.length || !(move || event.key === "Enter" || event.key === " ")) return;
    event.preventDefault();
    event.stopPropagation();
    if (!at || !panels.includes(at.panel)) {
      const panel = panels.find((each) => each.name === name);
      at = panel ? { panel, column, row } : { panel: panels[0], column: 0, row: 0 };
    }
    if (!move) return choose(at);
    const inside = (value, edges) => value >= 0 && value < edges.length - 1;
    const next = { panel: at.panel, column: at.column + move[0], row: at.row + move[1] };
    if (!inside(next.column, at.panel.x) || !inside(next.row, at.panel.y)) {
      next.panel = panels[panels.indexOf(at.panel) + move[0] + move[1]];
      if (!next.panel) return;
      next.column = Math.min(at.column, next.panel.x.length - 2);
      next.row = Math.min(at.row, next.panel.y.length - 2);
      if (move[0]) next.column = move[0] > 0 ? 0 : next.panel.x.length - 2;
      if (move[1]) next.row = move[1] > 0 ? 0 : next.panel.y.length - 2;
    }
    at = next;
    put(mark, at);
  });
  holder.addEventListener("blur", () => { mark.style.display = "none"; });
  for (const name of ["source", "width", "description"]) model.on(`change:${name}`, draw);
  draw();
}

export default { render };
