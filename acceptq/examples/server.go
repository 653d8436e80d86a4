// A Go server with a limit of eight connections: further ones wait in the accept queue.
package main

import (
	"io"
	"log"
	"net"
	"os"
)

func main() {
	listener, err := net.Listen("tcp", "127.0.0.1:"+os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	permits := make(chan struct{}, 8)
	for {
		permits <- struct{}{}
		connection, err := listener.Accept()
		if err != nil {
			log.Fatal(err)
		}
		go func() {
			defer func() { <-permits }()
			defer connection.Close()
			io.Copy(connection, connection)
		}()
	}
}
