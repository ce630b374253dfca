import { once } from "node:events";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";

/** Another site: its own origin, one page that embeds the element. */
export class ForeignSite {
  readonly #server: Server;
  /** The page's markup. */
  html = "";

  private constructor(server: Server) {
    this.#server = server;
    server.on("request", (_request, response) => {
      response.setHeader("content-type", "text/html; charset=utf-8").end(this.html);
    });
  }

  /** Listens on a free port. */
  static async start(): Promise<ForeignSite> {
    const server = createServer();
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    return new ForeignSite(server);
  }

  /** Its origin. */
  get origin(): string {
    return `http://localhost:${(this.#server.address() as AddressInfo).port}`;
  }

  /** Ends it. */
  async stop(): Promise<void> {
    this.#server.closeAllConnections();
    this.#server.close();
    await once(this.#server, "close");
  }
}
