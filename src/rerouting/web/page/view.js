// What a turn looks like. Text of models and users only ever becomes text nodes.

export function element(name, classes = "", text = "") {
  const made = document.createElement(name);
  if (classes) made.className = classes;
  if (text) made.textContent = text;
  return made;
}

const ENDINGS = {
  end: "", length: "cut at the length asked for", context: "the context is full", stopped: "stopped",
};

export class Turn {
  constructor(log, message) {
    this.root = element("section", "turn");
    this.root.append(element("p", "user", message));
    const pair = element("div", "pair");
    this.answers = { base: new Answer("base"), rerouted: new TracedAnswer("rerouted") };
    pair.append(this.answers.base.root, this.answers.rerouted.root);
    this.root.append(pair);
    log.append(this.root);
  }

  take(event) {
    if (event.kind === "piece") this.answers[event.model].add(event);
    else if (event.kind === "trip") this.answers.rerouted.trip(event.number);
    else if (event.kind === "done") this.answers[event.model].finish(event.why, event.text);
  }

  stop() {
    for (const answer of Object.values(this.answers)) answer.finish("stopped", "");
  }

  get texts() {
    return { base: this.answers.base.text, rerouted: this.answers.rerouted.text };
  }
}

class Answer {
  constructor(model) {
    this.text = "";
    this.over = false;
    this.spoken = false; // something of its own, besides a prefill
    this.root = element("article", `answer ${model}`);
    const head = element("h2", "", model);
    this.status = head.appendChild(element("span", "", "writing …"));
    this.body = element("div", "text");
    this.root.append(head, this.body);
  }

  add(piece) {
    this.text += piece.text;
    this.spoken ||= !piece.given && piece.text.trim() !== "";
    const span = element("span", piece.given ? "tok given" : "tok", piece.text);
    this.body.append(span);
    return span;
  }

  finish(why, text) {
    if (this.over) return;
    this.over = true;
    this.text += text;
    if (text) this.body.append(text);
    this.status.textContent = ENDINGS[why];
    if (why === "end" && !this.spoken) this.body.append(element("span", "note", "ends here"));
  }
}

class TracedAnswer extends Answer {
  constructor(model) {
    super(model);
    this.pieces = [];
    this.spans = [];
    this.tripped = 0;
    this.chosen = 0;
    this.marked = element("div", "trace");
    this.bars = element("div", "bars");
    this.bars.tabIndex = 0;
    this.bars.setAttribute("role", "slider");
    this.bars.setAttribute("aria-label", "Trace by token; arrow keys move");
    this.bars.setAttribute("aria-valuemin", "1");
    this.said = element("p", "said", "Hover or tap a token.");
    this.verdict = element("p", "verdict");
    this.marked.append(this.bars, this.said, this.verdict);
    this.marked.hidden = true;
    this.root.append(this.marked);
    for (const place of [this.body, this.bars]) {
      place.addEventListener("pointerover", (event) => this.point(event));
      place.addEventListener("click", (event) => this.point(event));
    }
    this.bars.addEventListener("keydown", (event) => this.step(event));
  }

  add(piece) {
    const span = super.add(piece);
    this.pieces.push(piece);
    this.spans.push(span);
    this.marked.hidden = false;
    span.classList.add("traced");
    span.dataset.token = piece.number;
    span.classList.toggle("away", piece.away > 0);
    if (piece.away > 0) span.style.backgroundColor = `rgba(var(--heat), ${(0.12 + 0.5 * piece.away).toFixed(2)})`;
    const bar = element("span", piece.given ? "bar given" : "bar");
    bar.dataset.token = piece.number;
    const fill = bar.appendChild(element("i"));
    fill.style.height = `${Math.round(10 + 90 * piece.away)}%`;
    if (piece.away > 0) fill.style.backgroundColor = `rgba(var(--heat), ${(0.45 + 0.55 * piece.away).toFixed(2)})`;
    this.bars.append(bar);
    this.bars.setAttribute("aria-valuemax", String(this.pieces.length));
    return span;
  }

  trip(number) {
    this.tripped = number;
    this.spans[number - 1].before(element("span", "mark", "trip"));
    this.bars.children[number - 1].classList.add("trip");
    const piece = this.pieces[number - 1];
    this.verdict.className = "verdict tripped";
    this.verdict.textContent = `Tripped at token ${number}${piece.given ? ", in the prefill" : ""}: ${figures(piece)}`;
  }

  finish(why, text) {
    if (this.over) return;
    super.finish(why, text);
    const known = this.pieces.filter((piece) => piece.cosine !== null);
    if (this.tripped || !known.length) return;
    const lowest = known.reduce((one, other) => (other.cosine < one.cosine ? other : one));
    this.verdict.className = "verdict calm";
    this.verdict.textContent = `No trip; furthest at token ${lowest.number}: ${figures(lowest)}`;
  }

  point(event) {
    const place = event.target.closest("[data-token]");
    if (place) this.choose(Number(place.dataset.token));
  }

  step(event) {
    const by = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1 }[event.key];
    if (!by || !this.pieces.length) return;
    event.preventDefault();
    this.choose(Math.min(this.pieces.length, Math.max(1, this.chosen + by)));
  }

  choose(number) {
    for (const places of [this.spans, this.bars.children]) {
      places[this.chosen - 1]?.classList.remove("chosen");
      places[number - 1].classList.add("chosen");
    }
    this.chosen = number;
    const piece = this.pieces[number - 1];
    const shown = piece.ended ? "the end" : piece.text ? `“${visible(piece.text)}”` : "part of a character, or none";
    const whose = piece.given ? ", prefilled" : "";
    this.said.textContent = `Token ${number} of ${this.pieces.length}${whose}, ${shown}: ${figures(piece)}`;
    this.bars.setAttribute("aria-valuenow", String(number));
    this.bars.setAttribute("aria-valuetext", this.said.textContent);
  }
}

function figures(piece) {
  const cosine = piece.cosine === null ? "unknown" : piece.cosine.toFixed(3);
  const kl = piece.kl === null ? "infinite" : `${piece.kl.toFixed(2)} nats`;
  return `cosine ${cosine}, KL ${kl}`;
}

function visible(text) {
  return text.replaceAll("\n", "⏎").replaceAll("\t", "⇥");
}
