// A server on net/http: on the socket of LISTEN_FDS, or on a port given as the argument. Every request takes 10 ms.
//
// On SIGTERM it finishes as net/http's Shutdown does; with the argument `abrupt` it dies of it.
package main

import (
	"context"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"
)

const (
	work        = 10 * time.Millisecond
	firstSocket = 3
)

func main() {
	listener, err := listen()
	if err != nil {
		log.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(answer)}
	finished := make(chan struct{})
	if os.Args[len(os.Args)-1] != "abrupt" {
		go func() {
			told := make(chan os.Signal, 1)
			signal.Notify(told, syscall.SIGTERM)
			<-told
			server.Shutdown(context.Background())
			close(finished)
		}()
	}
	if err := server.Serve(listener); err != http.ErrServerClosed {
		log.Fatal(err)
	}
	<-finished
}

func listen() (net.Listener, error) {
	if os.Getenv("LISTEN_FDS") != "" {
		return net.FileListener(os.NewFile(firstSocket, "listener"))
	}
	return net.Listen("tcp", "127.0.0.1:"+os.Args[1])
}

func answer(response http.ResponseWriter, request *http.Request) {
	if request.URL.Path != "/health" {
		time.Sleep(work)
	}
	generation := os.Getenv("ZDR_GENERATION")
	response.Header().Set("X-Generation", generation)
	fmt.Fprintf(response, "generation %s\n", generation)
}
