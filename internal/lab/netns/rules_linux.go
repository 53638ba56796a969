package netns

import (
	"encoding/binary"
	"slices"
	"sync"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Words of nftables in the order that nft would print them. A statement is a
// list of expressions; a rule is several statements.

type statement []expr.Any

// reg is one of the sixteen 32-bit registers.
func reg(n uint32) uint32 { return unix.NFT_REG32_00 + n }

func meta(key expr.MetaKey, value []byte) statement {
	return statement{
		&expr.Meta{Key: key, Register: reg(15)},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg(15), Data: value},
	}
}

func iif(name string) statement {
	return statement{
		&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: ifname(name)},
	}
}

func oif(name string) statement {
	return statement{
		&expr.Meta{Key: expr.MetaKeyOIFNAME, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: ifname(name)},
	}
}

func ifname(name string) []byte {
	b := make([]byte, unix.IFNAMSIZ)
	copy(b, name)
	return b
}

func protocol(p Protocol) statement { return meta(expr.MetaKeyL4PROTO, []byte{byte(p)}) }

func ipVersion(v4 bool) statement {
	if v4 {
		return meta(expr.MetaKeyNFPROTO, []byte{unix.NFPROTO_IPV4})
	}
	return meta(expr.MetaKeyNFPROTO, []byte{unix.NFPROTO_IPV6})
}

// Fields of a packet, each loaded into the register named and the ones after.

func loadProtocol(r uint32) statement {
	return statement{&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg(r)}}
}

func loadAddr(r uint32, v4, destination bool) statement {
	offset, length := uint32(8), uint32(16)
	if v4 {
		offset, length = 12, 4
	}
	if destination {
		offset += length
	}
	return statement{&expr.Payload{DestRegister: reg(r), Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: length}}
}

func loadPort(r uint32, destination bool) statement {
	var offset uint32
	if destination {
		offset = 2
	}
	return statement{&expr.Payload{DestRegister: reg(r), Base: expr.PayloadBaseTransportHeader, Offset: offset, Len: 2}}
}

func destination(addr []byte) statement {
	return append(loadAddr(12, len(addr) == 4, true),
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg(12), Data: addr})
}

func immediate(r uint32, b []byte) statement {
	return statement{&expr.Immediate{Register: reg(r), Data: b}}
}

func lookup(s *nftables.Set, key uint32) statement {
	return statement{&expr.Lookup{SourceRegister: reg(key), SetID: s.ID, SetName: s.Name}}
}

func absent(s *nftables.Set, key uint32) statement {
	return statement{&expr.Lookup{SourceRegister: reg(key), SetID: s.ID, SetName: s.Name, Invert: true}}
}

func lookupTo(s *nftables.Set, key, data uint32) statement {
	return statement{&expr.Lookup{SourceRegister: reg(key), SetID: s.ID, SetName: s.Name, DestRegister: reg(data), IsDestRegSet: true}}
}

// update adds an element, or makes it young again.
func update(s *nftables.Set, key uint32) statement {
	return statement{&expr.Dynset{SrcRegKey: reg(key), SetID: s.ID, SetName: s.Name, Operation: uint32(unix.NFT_DYNSET_OP_UPDATE)}}
}

func updateTo(s *nftables.Set, key, data uint32) statement {
	return statement{&expr.Dynset{SrcRegKey: reg(key), SrcRegData: reg(data), SetID: s.ID, SetName: s.Name, Operation: uint32(unix.NFT_DYNSET_OP_UPDATE)}}
}

// Connection tracking. The states are bits in the byte order of the machine.
const (
	ctInvalid     = 1
	ctEstablished = 2
	ctRelated     = 4
	ctDestNAT     = 0x20 // of the status
)

func ct(key expr.CtKey, bits uint32) statement {
	return statement{
		&expr.Ct{Key: key, Register: reg(15)},
		&expr.Bitwise{SourceRegister: reg(15), DestRegister: reg(15), Len: 4,
			Mask: binary.NativeEndian.AppendUint32(nil, bits), Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: reg(15), Data: make([]byte, 4)},
	}
}

func state(bits uint32) statement { return ct(expr.CtKeySTATE, bits) }
func redirected() statement       { return ct(expr.CtKeySTATUS, ctDestNAT) }

func accept() statement { return statement{&expr.Verdict{Kind: expr.VerdictAccept}} }
func drop() statement   { return statement{&expr.Verdict{Kind: expr.VerdictDrop}} }

// ruleset writes one table.
type ruleset struct {
	conn  *nftables.Conn
	table *nftables.Table
}

func newRuleset(family nftables.TableFamily, name string) (*ruleset, error) {
	c, err := nftables.New()
	if err != nil {
		return nil, err
	}
	return &ruleset{c, c.AddTable(&nftables.Table{Family: family, Name: name})}, nil
}

func (r *ruleset) chain(name string, kind nftables.ChainType, hook *nftables.ChainHook, prio *nftables.ChainPriority, policy nftables.ChainPolicy) *nftables.Chain {
	return r.conn.AddChain(&nftables.Chain{Table: r.table, Name: name, Type: kind, Hooknum: hook, Priority: prio, Policy: &policy})
}

func (r *ruleset) rule(c *nftables.Chain, statements ...statement) {
	r.conn.AddRule(&nftables.Rule{Table: r.table, Chain: c, Exprs: slices.Concat(statements...)})
}

// The library numbers sets in a variable of its package, without a lock.
var setNumbers sync.Mutex

func (r *ruleset) set(s *nftables.Set, key []nftables.SetDatatype, data ...nftables.SetDatatype) (*nftables.Set, error) {
	setNumbers.Lock()
	defer setNumbers.Unlock()
	var err error
	if s.KeyType, err = nftables.ConcatSetType(key...); err != nil {
		return nil, err
	}
	if len(data) > 0 {
		s.IsMap = true
		if s.DataType, err = nftables.ConcatSetType(data...); err != nil {
			return nil, err
		}
	}
	s.Table, s.Dynamic, s.HasTimeout = r.table, true, true
	s.KeyByteOrder = binaryutil.BigEndian
	return s, r.conn.AddSet(s, nil)
}
