// Make elements. Content becomes text and attributes and is never read as HTML.

const SVG = "http://www.w3.org/2000/svg";

const ICONS = {
  back: "M9.5 3.5 5 8l4.5 4.5",
  bolt: "M9 1.8 3.8 9h3.6L6.8 14.2 12.2 7H8.4z",
  breaker: "M1.5 10.5h3.2l6-5M14.5 10.5h-3",
  cache: "M2.5 4.2c0-1.2 2.5-2 5.5-2s5.5.8 5.5 2-2.5 2-5.5 2-5.5-.8-5.5-2zv7.6c0 1.2 2.5 2 5.5 2s5.5-.8 5.5-2V4.2M2.5 8c0 1.2 2.5 2 5.5 2s5.5-.8 5.5-2",
  cancelled: "M8 2.2a5.8 5.8 0 1 0 0 11.6A5.8 5.8 0 0 0 8 2.2zM4 12 12 4",
  chevron: "M6 4l4 4-4 4",
  clock: "M8 2.2a5.8 5.8 0 1 0 0 11.6A5.8 5.8 0 0 0 8 2.2zM8 4.8V8l2.2 1.6",
  close: "M4 4l8 8M12 4l-8 8",
  copy: "M5.5 5.5V3.2c0-.4.3-.7.7-.7h6.6c.4 0 .7.3.7.7v6.6c0 .4-.3.7-.7.7h-2.3M3.2 5.5h6.6c.4 0 .7.3.7.7v6.6c0 .4-.3.7-.7.7H3.2a.7.7 0 0 1-.7-.7V6.2c0-.4.3-.7.7-.7z",
  cross: "M4.2 4.2l7.6 7.6M11.8 4.2l-7.6 7.6",
  dark: "M13.2 9.6A5.6 5.6 0 0 1 6.4 2.8a5.6 5.6 0 1 0 6.8 6.8z",
  diamond: "M8 3.2 12.8 8 8 12.8 3.2 8z",
  dots: "M3.5 8h.01M8 8h.01M12.5 8h.01",
  fit: "M2.5 6V2.5H6M10 2.5h3.5V6M13.5 10v3.5H10M6 13.5H2.5V10",
  fold: "M2.5 3v10M13.5 3v10M5 8h6M5 8l1.6-1.6M5 8l1.6 1.6M11 8 9.4 6.4M11 8 9.4 9.6",
  help: "M6 6.2a2 2 0 1 1 2.9 1.9c-.6.3-.9.7-.9 1.4v.2M8 12.2h.01",
  light: "M8 5.2a2.8 2.8 0 1 0 0 5.6 2.8 2.8 0 0 0 0-5.6zM8 1.5v1.2M8 13.3v1.2M1.5 8h1.2M13.3 8h1.2M3.4 3.4l.9.9M11.7 11.7l.9.9M12.6 3.4l-.9.9M4.3 11.7l-.9.9",
  minus: "M3.5 8h9",
  nest: "M3 3.5h10M6 8h7M9 12.5h4",
  plus: "M3.5 8h9M8 3.5v9",
  retry: "M13 8a5 5 0 1 1-1.6-3.7M13 2.2v2.9h-2.9",
  ring: "M8 4.4a3.6 3.6 0 1 0 0 7.2 3.6 3.6 0 0 0 0-7.2z",
  speech: "M3.2 2.8h9.6c.6 0 1 .4 1 1v6c0 .6-.4 1-1 1H7.6L4.4 13.4v-2.6H3.2c-.6 0-1-.4-1-1v-6c0-.6.4-1 1-1z",
  skip: "M3.5 3.5 8 8l-4.5 4.5M8.5 3.5 13 8l-4.5 4.5",
  tick: "M3 8.6 6.4 12 13 4.6",
  trouble: "M8 2.2 14.3 13.3H1.7zM8 6.4v3.2M8 11.6h.01",
};

/** Return a new element; what is null or false among the children is left out. */
function make(tag, properties, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties || {})) {
    put(element, name, value);
  }
  element.append(...children.flat().filter((one) => one !== null && one !== false));
  return element;
}

function put(element, name, value) {
  if (value === null || value === undefined || value === false) return;
  if (name === "class") element.className = value;
  else if (name === "text") element.textContent = value;
  else if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
  else element.setAttribute(name, value === true ? "" : String(value));
}

/** Return a picture of 16 by 16 that says nothing to those who cannot see it. */
function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 16 16");
  svg.setAttribute("aria-hidden", "true");
  svg.setAttribute("class", "icon");
  const path = document.createElementNS(SVG, "path");
  path.setAttribute("d", ICONS[name]);
  svg.append(path);
  return svg;
}

/** Return a button with an icon, and a name that is read and shown on hovering. */
function iconButton(name, label, onclick, properties) {
  const given = { type: "button", class: "quiet icon", title: label, onclick };
  return make("button", { ...given, "aria-label": label, ...properties }, icon(name));
}

/** Return a button that copies a text and says that it did. */
function copyButton(text, label) {
  const button = iconButton("copy", label, () => {
    copied(text).then((done) => said(button, done ? "tick" : "cross"));
  });
  return button;
}

function said(button, name) {
  button.replaceChildren(icon(name));
  button.classList.add("done");
  setTimeout(() => {
    button.replaceChildren(icon("copy"));
    button.classList.remove("done");
  }, 1500);
}

/** Copy a text; pages that were opened as files have no clipboard everywhere. */
async function copied(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch (error) {
    const area = make("textarea", { class: "away", "aria-hidden": "true" });
    area.value = text;
    document.body.append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    return done;
  }
}

/** Return a function that calls another before the next frame, once. */
function beforeNextFrame(callback) {
  let asked = 0;
  return () => {
    if (asked) return;
    asked = requestAnimationFrame(() => {
      asked = 0;
      callback();
    });
  };
}

function clamped(value, least, most) {
  return Math.min(Math.max(value, least), most);
}
