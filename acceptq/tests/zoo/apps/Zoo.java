// Servers in Java: Zoo.java MODE HOST PORT
import java.io.*;
import java.net.*;
import java.nio.channels.*;
import java.util.*;
import java.util.concurrent.*;

class Zoo {
    public static void main(String[] a) throws Exception {
        InetSocketAddress address = new InetSocketAddress(a[1], Integer.parseInt(a[2]));
        if (a[0].equals("nio")) { nio(address); return; }
        ServerSocket listener = new ServerSocket();
        listener.bind(address, 128);
        ExecutorService pool = Executors.newFixedThreadPool(2);
        Object lock = new Object();
        if (a[0].equals("hang")) new Thread(() -> { synchronized (lock) { sleep(); } }).start();
        while (true) {
            Socket socket = listener.accept();
            pool.execute(() -> {
                try (socket) {
                    if (a[0].equals("hang")) synchronized (lock) { sleep(); }
                    socket.getInputStream().read(new byte[4096]);
                    socket.getOutputStream().write("HTTP/1.0 200 OK\r\n\r\nok\n".getBytes());
                } catch (IOException e) { }
            });
        }
    }

    static void sleep() { try { Thread.sleep(3600000); } catch (InterruptedException e) { } }

    static void nio(InetSocketAddress address) throws Exception {
        ServerSocketChannel listener = ServerSocketChannel.open();
        listener.bind(address, 128).configureBlocking(false);
        Selector selector = Selector.open();
        listener.register(selector, SelectionKey.OP_ACCEPT);
        while (true) {
            selector.select();
            for (SelectionKey key : selector.selectedKeys()) {
                SocketChannel client = listener.accept();
                if (client == null) continue;
                client.socket().getInputStream().read(new byte[4096]);
                client.close();
            }
            selector.selectedKeys().clear();
        }
    }
}
