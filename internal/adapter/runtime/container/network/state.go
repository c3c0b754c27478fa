package network

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"ebb.dev/ebb/internal/platform/netns"
)

// record is the file that says whose an attachment is; its name is the address.
type record struct {
	Boot       string     `json:"boot"` // attachments do not survive one
	Sandbox    string     `json:"sandbox"`
	Attachment Attachment `json:"attachment"`
}

func (p *Pods) recordPath(a *Attachment) string {
	return filepath.Join(p.recordDir(), a.IP.String()+".json")
}

// write stores the owner. It is not synced to disk: a crash of the process keeps it, and after one
// of the machine it means nothing.
func (p *Pods) write(sandboxID string, a *Attachment) error {
	data, err := json.Marshal(record{Boot: p.boot, Sandbox: sandboxID, Attachment: *a})
	if err != nil {
		return err
	}
	return writeFile(p.recordPath(a), data)
}

// writeFile replaces a file in one step, so that a reader never sees half of it.
func writeFile(path string, data []byte) error {
	temporary := path + ".new"
	if err := os.WriteFile(temporary, data, 0o600); err != nil {
		return err
	}
	return os.Rename(temporary, path)
}

// forget deletes the record of an attachment.
func (p *Pods) forget(a *Attachment) error {
	if err := os.Remove(p.recordPath(a)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("forgetting owner: %w", err)
	}
	return nil
}

// adopt reads the records, keeps those whose link and namespace are there, and tears down all else
// that former processes left.
func (p *Pods) adopt() error {
	files, err := os.ReadDir(p.recordDir())
	if err != nil {
		return err
	}
	for _, f := range files {
		if err := p.adoptRecord(filepath.Join(p.recordDir(), f.Name())); err != nil {
			return err
		}
	}
	return p.sweep()
}

func (p *Pods) adoptRecord(path string) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var r record
	if err := json.Unmarshal(data, &r); err != nil || r.Boot != p.boot || !p.stands(&r.Attachment) {
		return os.Remove(path)
	}
	p.owned[r.Sandbox] = &r.Attachment
	p.pool.take(r.Attachment.IP)
	return nil
}

// stands tells whether namespace and link are still there and belong together.
func (p *Pods) stands(a *Attachment) bool {
	space, err := netns.OpenSpace(a.NetnsPath)
	if err != nil {
		return false
	}
	_ = space.Close()
	_, err = p.net.Routes().LinkByName(a.HostIf)
	return err == nil
}

// sweep deletes namespaces and links no record speaks for.
func (p *Pods) sweep() error {
	known := map[string]bool{}
	for _, a := range p.owned {
		known[a.NetnsPath], known[a.HostIf] = true, true
	}
	spaces, err := os.ReadDir(p.netnsDir())
	if err != nil {
		return err
	}
	for _, f := range spaces {
		path := filepath.Join(p.netnsDir(), f.Name())
		if known[path] {
			continue
		}
		if err := netns.Unmake(path); err != nil {
			return err
		}
	}
	links, err := p.net.Routes().LinkList()
	if err != nil {
		return fmt.Errorf("listing links: %w", err)
	}
	for _, l := range links {
		name := l.Attrs().Name
		if l.Type() != "veth" || !strings.HasPrefix(name, "p") || known[name] {
			continue
		}
		if err := removeLink(p.net.Routes(), name); err != nil {
			return err
		}
	}
	return nil
}

// CleanUp deletes the namespaces and records under stateDir, for when the whole network goes. The
// addresses' order is kept, so that the next start does not begin with those used last.
func CleanUp(stateDir string) error {
	p := &Pods{dir: stateDir}
	spaces, err := os.ReadDir(p.netnsDir())
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("listing pod networks: %w", err)
	}
	var errs []error
	for _, f := range spaces {
		errs = append(errs, netns.Unmake(filepath.Join(p.netnsDir(), f.Name())))
	}
	return errors.Join(append(errs, os.RemoveAll(p.netnsDir()), os.RemoveAll(p.recordDir()))...)
}
