// Search without a server: browsers start no worker from file://, so its script runs in a hidden frame instead.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super()
      this.waiting = []
      const frame = document.createElement("iframe")
      frame.hidden = true
      frame.addEventListener("load", () => this.begin(frame.contentWindow, url), { once: true })
      frame.srcdoc = "<!doctype html><title>search</title>"
      document.documentElement.append(frame)
    }

    begin(inside, url) {
      inside.postMessage = data => this.dispatchEvent(new MessageEvent("message", { data }))
      inside.importScripts = (...urls) => urls.reduce((before, one) => before.then(() => this.run(inside, one)), Promise.resolve())
      this.run(inside, url).then(() => {
        this.inside = inside
        this.waiting.forEach(data => this.postMessage(data))
      })
    }

    run(inside, url) {
      return new Promise((done, failed) => {
        const script = inside.document.createElement("script")
        script.src = url
        script.onload = done
        script.onerror = () => failed(new Error(`${url} cannot be loaded`))
        inside.document.body.append(script)
      })
    }

    postMessage(data) {
      if (this.inside) this.inside.dispatchEvent(new MessageEvent("message", { data }))
      else this.waiting.push(data)
    }
  }
}
