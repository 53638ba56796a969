package link

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/bodkin-net/bodkin/internal/identity"
)

// Client makes a link to peer over c, as the TLS client, and takes c over: it
// is closed when this fails. It returns as soon as this end's part of the
// handshake is done: what is sent then leaves together with it.
func (i *Identity) Client(ctx context.Context, c net.Conn, peer identity.ID) (Link, error) {
	var refused error
	corked := &corkedConn{Conn: c}
	return i.handshake(ctx, corked, tls.Client(corked, i.expect(peer, &refused)), &refused)
}

// Server makes a link over c, as the TLS server, and takes c over: it is closed
// when this fails.
func (i *Identity) Server(ctx context.Context, c net.Conn) (Link, error) {
	var refused error
	corked := &corkedConn{Conn: c}
	return i.handshake(ctx, corked, tls.Server(corked, i.admit(&refused)), &refused)
}

func (i *Identity) handshake(ctx context.Context, c *corkedConn, t *tls.Conn, refused *error) (Link, error) {
	ctx, cancel := context.WithTimeout(ctx, i.Config.withDefaults().HandshakeTimeout)
	defer cancel()
	err := t.HandshakeContext(ctx)
	if err == nil {
		var peer identity.ID
		if peer, err = peerOf(t.ConnectionState()); err == nil {
			return newTLSLink(c, t, peer, time.Since(c.firstWrite())), nil
		}
	}
	c.Close()
	if *refused != nil {
		return nil, fmt.Errorf("link: %w", *refused)
	}
	return nil, tlsEnd(err)
}

// tlsEnd says why a TLS connection ended, when neither end gave a reason.
func tlsEnd(err error) error {
	if op, ok := errors.AsType[*net.OpError](err); ok {
		switch op.Op { // crypto/tls tells alerts apart so
		case "remote error":
			return &EndError{Cause: CauseRemote, Err: err}
		case "local error":
			return &EndError{Cause: CausePeer, Err: err}
		}
	}
	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		return &EndError{Cause: CausePeer, Err: err}
	}
	if errors.Is(err, context.Canceled) {
		return &EndError{Cause: CauseLocal, Err: err}
	}
	return &EndError{Cause: CausePath, Err: err}
}
