// A server on com.sun.net.httpserver that binds its own address. Every request takes 10 ms.
//
// On SIGTERM it accepts nothing more and gives its exchanges a moment; with the argument `abrupt` it dies of it.

import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import java.io.IOException;
import java.net.InetSocketAddress;
import java.util.concurrent.Executors;

public class Server {
    static final int WORK_MS = 10;
    static final int FAREWELL_S = 1;
    static final String GENERATION = System.getenv().getOrDefault("ZDR_GENERATION", "");

    public static void main(String[] arguments) throws IOException {
        var server = HttpServer.create(new InetSocketAddress("127.0.0.1", Integer.parseInt(arguments[0])), 0);
        server.createContext("/", Server::answer);
        server.setExecutor(Executors.newCachedThreadPool());
        if (arguments.length == 1) {
            Runtime.getRuntime().addShutdownHook(new Thread(() -> server.stop(FAREWELL_S)));
        }
        server.start();
    }

    static void answer(HttpExchange exchange) throws IOException {
        if (!exchange.getRequestURI().getPath().equals("/health")) {
            try {
                Thread.sleep(WORK_MS);
            } catch (InterruptedException cause) {
                Thread.currentThread().interrupt();
            }
        }
        var body = ("generation " + GENERATION + "\n").getBytes();
        exchange.getResponseHeaders().set("X-Generation", GENERATION);
        exchange.sendResponseHeaders(200, body.length);
        try (var stream = exchange.getResponseBody()) {
            stream.write(body);
        }
    }
}
