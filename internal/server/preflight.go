package server

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Preflight says what would keep Up from working before anything is touched.
func Preflight(o Options) error {
	o.HTTPS = o.httpsAddress()
	pid, err := holder(o.Folder)
	if err != nil {
		return err
	}
	if pid != 0 {
		return runningError(o.Folder, pid)
	}
	if os.Geteuid() != 0 {
		return errors.New("starting pods needs root: namespaces, mounts and cgroups are made for them; run `sudo ebb up`")
	}
	if err := errors.Join(needMachine(), needCapabilities()); err != nil {
		return err
	}
	if err := errors.Join(
		portFree("--http", o.HTTP, "127.0.0.1:8081"),
		portFree("--api", o.API, "127.0.0.1:6444"),
	); err != nil {
		return err
	}
	if err := portFree("--https", o.HTTPS, "127.0.0.1:8444"); err != nil {
		return err // only now: it may follow --http
	}
	flags := map[string]string{}
	for _, a := range []struct{ flag, address string }{{"--http", o.HTTP}, {"--https", o.HTTPS}, {"--api", o.API}} {
		if other := flags[a.address]; other != "" {
			return fmt.Errorf("%s and %s are both %s: give each a port of its own", other, a.flag, a.address)
		}
		flags[a.address] = a.flag
	}
	return nil
}

// tlsDistance is how far the port for TLS is from the one without, unless it is said: 8443 goes with
// 8080, and what is started beside that with another --http has another --https.
const tlsDistance = 363

// httpsAddress is where the gateway speaks TLS on this machine.
func (o Options) httpsAddress() string {
	host, text, err := net.SplitHostPort(o.HTTP)
	port, e := strconv.Atoi(text)
	if o.HTTPS != "" || err != nil || e != nil || port == 0 {
		return o.HTTPS
	}
	if port += tlsDistance; port > 65535 {
		port -= 2 * tlsDistance
	}
	return net.JoinHostPort(host, strconv.Itoa(port))
}

// needMachine refuses a root that is one in a user namespace only: its mounts and devices are not the
// machine's.
func needMachine() error {
	data, err := os.ReadFile("/proc/self/uid_map")
	if err != nil {
		return fmt.Errorf("reading user namespace: %w", err)
	}
	if fields := strings.Fields(string(data)); len(fields) != 3 || fields[0] != "0" || fields[1] != "0" || fields[2] != "4294967295" {
		return errors.New("starting pods needs the machine's root; this one is root in a user namespace only (rootless container, unshare --user): run ebb outside of it")
	}
	return nil
}

// needed are the capabilities without which no pod can run; others are done without, and said so.
var needed = []struct {
	bit  uint
	name string
}{
	{unix.CAP_SYS_ADMIN, "CAP_SYS_ADMIN"},
	{unix.CAP_NET_ADMIN, "CAP_NET_ADMIN"},
	{unix.CAP_CHOWN, "CAP_CHOWN"},
	{unix.CAP_DAC_OVERRIDE, "CAP_DAC_OVERRIDE"},
	{unix.CAP_SETUID, "CAP_SETUID"},
	{unix.CAP_SETGID, "CAP_SETGID"},
	{unix.CAP_KILL, "CAP_KILL"},
}

func needCapabilities() error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return fmt.Errorf("reading capabilities: %w", err)
	}
	var missing []string
	for _, c := range needed {
		if data[c.bit/32].Effective&(1<<(c.bit%32)) == 0 {
			missing = append(missing, c.name)
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("starting pods needs %s, which this root does not have (a container without --privileged?): give them, or run ebb on the machine itself", strings.Join(missing, ", "))
	}
	return nil
}

// portFree tells whether an address can be listened on, naming the flag that changes it.
func portFree(flag, address, other string) error {
	host, port, err := net.SplitHostPort(address)
	if number, _ := strconv.ParseUint(port, 10, 16); err != nil || number == 0 {
		return fmt.Errorf("%s %q: want host:port, such as %s", flag, address, other)
	}
	if ip := net.ParseIP(host); ip == nil || !ip.IsLoopback() {
		return fmt.Errorf("%s %q: want a loopback address, such as %s; ebb up listens nowhere else", flag, address, other)
	}
	l, err := net.Listen("tcp", address) //nolint:noctx // closed at once
	if errors.Is(err, unix.EADDRINUSE) {
		return fmt.Errorf("%s is in use by another program: choose another address, such as %s %s (`ss -ltnp` shows who has it)", address, flag, other)
	}
	if err != nil {
		return fmt.Errorf("listening on %s %s: %w", flag, address, err)
	}
	return l.Close()
}
