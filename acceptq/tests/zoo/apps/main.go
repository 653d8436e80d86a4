// Servers in Go: main MODE ADDRESS
package main

import (
	"net"
	"net/http"
	"os"
	"time"
)

// limited is netutil.LimitListener.
type limited struct {
	net.Listener
	sem chan struct{}
}

type conn struct {
	net.Conn
	done func()
}

func (c conn) Close() error { defer c.done(); return c.Conn.Close() }

func (l limited) Accept() (net.Conn, error) {
	l.sem <- struct{}{}
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return conn{c, func() { <-l.sem }}, nil
}

func main() {
	mode := os.Args[1]
	l, err := net.Listen("tcp", os.Args[2])
	if err != nil {
		panic(err)
	}
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { w.Write([]byte("ok\n")) })
	http.HandleFunc("/compute", func(w http.ResponseWriter, r *http.Request) {
		for end := time.Now().Add(30 * time.Second); time.Now().Before(end); {
		}
	})
	switch mode {
	case "http":
		http.Serve(l, nil)
	case "limit":
		http.Serve(limited{l, make(chan struct{}, 2)}, nil)
	case "never":
		time.Sleep(time.Hour)
	case "ended":
		c, _ := l.Accept()
		defer c.Close()
		time.Sleep(time.Hour)
	case "hang":
		for {
			c, _ := l.Accept()
			defer c.Close()
		}
	case "slow":
		for {
			c, _ := l.Accept()
			c.Close()
			time.Sleep(50 * time.Millisecond)
		}
	}
}
