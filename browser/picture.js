// A figure that can be clicked: a picture, and the panels of it that are divided into rows, columns or cells.
//
// Read from the model: `source` (a data URL), `description`, `width` (CSS pixels), `panels`: [{name, box: [left, top,
// right, bottom] as shares of the picture, x: edges, y: edges, as shares of the panel from its left and top}].
// Written to the model: `clicked` {panel, column, row, count}. What `chosen` names, and then what was clicked, stays marked.

function render({ model, el }) {
  const holder = document.createElement("div");
  holder.className = "rlmop-picture";
  const image = document.createElement("img");
  const mark = document.createElement("div"), kept = document.createElement("div");
  mark.className = "rlmop-mark";
  kept.className = "rlmop-mark rlmop-chosen";
  holder.append(image, kept, mark);
  el.append(holder);
  let count = 0;

  const draw = () => {
    image.src = model.get("source");
    image.alt = model.get("description");
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
  holder.addEventListener("click", (event) => {
    const found = find(event);
    if (!found) return;
    put(kept, found);
    model.set("clicked", { panel: found.panel.name, column: found.column, row: found.row, count: ++count });
    model.save_changes();
  });
  for (const name of ["source", "width", "description"]) model.on(`change:${name}`, draw);
  draw();
}

export default { render };
