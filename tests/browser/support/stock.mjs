// A WebSocket server as anybody writes it: the package ws and nothing else. usage: node stock.mjs PORT
import { WebSocketServer } from "ws";

const server = new WebSocketServer({ host: "127.0.0.1", port: Number(process.argv[2]) });
server.on("listening", () => {
  console.log("listening");
});
