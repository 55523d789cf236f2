// Reading a view's data again when something has changed: one reading at a time, none twice in vain.

/**
 * `read(isClosed)` reads and shows; what it throws is said in the element `problem`. What is asked
 * for while it reads is read once more, `rest` milliseconds after.
 */
export class Reloading {
  constructor(read, problem, rest = 0) {
    Object.assign(this, { read, problem, rest, closed: false, busy: false, again: false, later: null });
  }

  async load() {
    if (this.busy) {
      this.again = true;
      return;
    }
    this.busy = true;
    try {
      await this.read(() => this.closed);
      this.problem.hidden = true;
    } catch (error) {
      this.problem.hidden = false;
      this.problem.textContent = error.message || String(error);
    } finally {
      this.busy = false;
      if (this.again && !this.closed) {
        this.again = false;
        this.soon(this.rest);
      }
    }
  }

  /** Load after so many milliseconds, however often it is said until then. */
  soon(milliseconds) {
    this.later ??= setTimeout(() => {
      this.later = null;
      if (!this.closed) this.load();
    }, milliseconds);
  }

  close() {
    this.closed = true;
    clearTimeout(this.later);
  }
}
