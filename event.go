package bodkin

import (
	"encoding/json"
	"time"
)

// EventType names what happened.
type EventType string

const (
	EventRegistered EventType = "registered" // ID, Server
	EventRequest    EventType = "request"    // Peer asks to connect
	EventStream     EventType = "stream"     // Peer, Dir: a stream was opened
	EventPath       EventType = "path"       // Peer, Path: the path in use changed
	EventAttempt    EventType = "attempt"    // Peer, Technique, Result, Reason
	EventEnd        EventType = "end"        // Peer, BytesIn, BytesOut: a stream ended
	EventError      EventType = "error"      // Code, Message, Hint
)

// Event is something a node tells about itself; Config.Observe receives it.
// Only the fields that its type names are set.
type Event struct {
	Type EventType
	Time time.Time
	Peer ID

	ID        ID     // registered: the node's own
	Server    string // registered: the endpoint that answered
	Transport string // registered: "udp" or "tcp"
	Dir       string // stream: "out" or "in"
	Path      Path   // path
	Technique string // attempt
	Result    string // attempt: "ok", "failed" or a step of it
	Reason    string // attempt: why, in words
	BytesIn   int64  // end
	BytesOut  int64  // end
	Code      Code   // error
	Message   string // error
	Hint      string // error
}

// MarshalJSON gives the object that the command writes for --json: always with
// "v", "type" and "time"; new fields may come, none changes its meaning.
func (e Event) MarshalJSON() ([]byte, error) {
	type head struct {
		V    int       `json:"v"`
		Type EventType `json:"type"`
		Time time.Time `json:"time"`
		Peer *ID       `json:"peer,omitempty"`
	}
	h := head{V: 1, Type: e.Type, Time: e.Time}
	if e.Peer != (ID{}) {
		h.Peer = &e.Peer
	}
	switch e.Type {
	case EventRegistered:
		return json.Marshal(struct {
			head
			ID        ID     `json:"id"`
			Server    string `json:"server"`
			Transport string `json:"transport"`
		}{h, e.ID, e.Server, e.Transport})
	case EventStream:
		return json.Marshal(struct {
			head
			Dir string `json:"dir"`
		}{h, e.Dir})
	case EventPath:
		return json.Marshal(struct {
			head
			Path
			RTT float64 `json:"rtt_ms"`
		}{h, e.Path, float64(e.Path.RTT) / float64(time.Millisecond)})
	case EventAttempt:
		return json.Marshal(struct {
			head
			Technique string `json:"technique"`
			Result    string `json:"result"`
			Reason    string `json:"reason,omitempty"`
		}{h, e.Technique, e.Result, e.Reason})
	case EventEnd:
		return json.Marshal(struct {
			head
			BytesIn  int64 `json:"bytes_in"`
			BytesOut int64 `json:"bytes_out"`
		}{h, e.BytesIn, e.BytesOut})
	case EventError:
		return json.Marshal(struct {
			head
			Code    Code   `json:"code"`
			Message string `json:"message"`
			Hint    string `json:"hint,omitempty"`
		}{h, e.Code, e.Message, e.Hint})
	}
	return json.Marshal(h)
}
