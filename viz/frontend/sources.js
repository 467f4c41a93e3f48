// Where crystals come from: the blocks of a page, or the kernel of a notebook, which computes what is asked for.

const IN_PAGE = "structure in this page";
const KEPT = 4; // blocks of a page that stay unpacked

/** Asks the kernel. Answers that come too late are given to nobody. */
export class KernelSource {
  #model;
  #waiting = new Map();
  #question = 0;

  constructor(model) {
    this.#model = model;
    model.on("msg:custom", (content, buffers) => {
      const resolve = this.#waiting.get(content.question);
      this.#waiting.delete(content.question);
      resolve?.({ ...content, data: buffers?.[0] ?? null });
    });
  }

  /** Whether any point has this. */
  offers(kind) {
    const offer = this.#model.get("offers")[kind];
    return Array.isArray(offer) ? offer.length > 0 : Boolean(offer);
  }

  has(kind, point) {
    const offer = this.#model.get("offers")[kind];
    return Array.isArray(offer) ? offer.includes(point) : Boolean(offer);
  }

  /** Words on what the page cannot show; the kernel can show everything that there is. */
  why(kind) {
    return kind === "crystal" ? "This point has no structure." : `No ${kind} was given for this crystal.`;
  }

  ask(kind, point) {
    const question = ++this.#question;
    return new Promise((resolve) => {
      this.#waiting.set(question, resolve);
      this.#model.send({ kind, point, question });
    });
  }
}

/** Unpacks the blocks of a page. */
export class PageSource {
  #packed;
  #unpacked = new Map();

  constructor(model) {
    this.#packed = model.get("packed");
  }

  /** Whether any point has this. */
  offers(kind) {
    return Object.keys(this.#packed[kind]).length > 0;
  }

  has(kind, point) {
    return point in this.#packed[kind];
  }

  /** Say in the table which points have their structure in the page, if not all have it. */
  tell(table) {
    const points = Object.keys(this.#packed.crystal).map(Number);
    if (!points.length || points.length === table.nPoints) return;
    const raised = new Uint8Array(table.nPoints);
    for (const point of points) raised[point] = 1;
    table.flags.push({ name: IN_PAGE, count: points.length, raised });
    const number = (n) => n.toLocaleString("en");
    table.notes.push(`This page contains the structures of ${number(points.length)} of ${number(table.nPoints)} points. The filter “Flag” finds them: “${IN_PAGE}”.`);
  }

  why(kind) {
    const count = Object.keys(this.#packed[kind]).length;
    if (!this.offers(kind)) return kind === "crystal" ? "This page contains no structures." : `This page contains no ${kind}.`;
    const what = { crystal: "structures", attention: "attention", explanation: "explanations" }[kind];
    return `This page contains the ${what} of ${count.toLocaleString("en")} crystals; this is not one of them. A notebook shows all.`;
  }

  async ask(kind, point) {
    const [block, number] = this.#packed[kind][point];
    const bytes = await this.#block(`${kind}-${block}`);
    const length = new DataView(bytes).getUint32(0, true);
    const header = JSON.parse(new TextDecoder().decode(new Uint8Array(bytes, 4, length)))[number];
    return { header, data: new Uint8Array(bytes, 4 + length + header.start, header.length) };
  }

  async #block(name) {
    if (!this.#unpacked.has(name)) {
      const text = document.getElementById(name).textContent;
      const packed = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
      const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
      this.#unpacked.set(name, await new Response(stream).arrayBuffer());
      if (this.#unpacked.size > KEPT) this.#unpacked.delete(this.#unpacked.keys().next().value);
    }
    return this.#unpacked.get(name);
  }
}
