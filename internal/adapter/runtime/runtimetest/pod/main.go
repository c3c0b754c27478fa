// Command pod is the program in the suite's test image: each verb does or tells one thing.
package main

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"runtime"
	"sort"
	"strconv"
	"strings"
	"syscall"
	"time"
)

var verbs = map[string]func(args []string) int{
	"exit":   exit,
	"sleep":  sleep,
	"echo":   echo,
	"cat":    cat,
	"print":  printFile,
	"status": status,
	"id":     id,
	"env":    env,
	"list":   list,
	"write":  write,
	"eat":    eat,
	"serve":  serve,
	"trap":   trap,
	"fork":   fork,
	"crowd":  crowd,
	"try":    try,
	"both":   both,
	"ticks":  ticks,
	"tty":    tty,
}

func main() {
	if len(os.Args) < 2 || verbs[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, "no such verb")
		os.Exit(64)
	}
	os.Exit(verbs[os.Args[1]](os.Args[2:]))
}

func fail(err error) int {
	fmt.Fprintln(os.Stderr, err)
	return 1
}

// exit ends with the code given.
func exit(args []string) int {
	code, err := strconv.Atoi(args[0])
	if err != nil {
		return fail(err)
	}
	return code
}

// sleep runs until killed.
func sleep([]string) int {
	<-time.After(time.Hour)
	return 0
}

// echo prints its arguments; a last "-n" leaves the line open, and then it sleeps.
func echo(args []string) int {
	if n := len(args); n > 0 && args[n-1] == "-n" {
		fmt.Print(strings.Join(args[:n-1], " "))
		return sleep(nil)
	}
	fmt.Println(strings.Join(args, " "))
	return 0
}

// cat copies stdin to stdout.
func cat([]string) int {
	if _, err := io.Copy(os.Stdout, os.Stdin); err != nil {
		return fail(err)
	}
	fmt.Println("end of input")
	return 0
}

// print shows files.
func printFile(args []string) int {
	for _, name := range args {
		data, err := os.ReadFile(name)
		if err != nil {
			return fail(err)
		}
		os.Stdout.Write(data)
	}
	return 0
}

// status shows some lines of the process's own state.
func status(args []string) int {
	f, err := os.Open("/proc/self/status")
	if err != nil {
		return fail(err)
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		for _, want := range args {
			if strings.HasPrefix(s.Text(), want+":") {
				fmt.Println(strings.Join(strings.Fields(s.Text()), " "))
			}
		}
	}
	return 0
}

func id([]string) int {
	groups, err := os.Getgroups()
	if err != nil {
		return fail(err)
	}
	sort.Ints(groups)
	cwd, err := os.Getwd()
	if err != nil {
		return fail(err)
	}
	host, err := os.Hostname()
	if err != nil {
		return fail(err)
	}
	fmt.Println(os.Getuid(), os.Geteuid(), os.Getgid(), groups, cwd, host, os.Getpid())
	return 0
}

func env([]string) int {
	fmt.Println(strings.Join(os.Environ(), "\n"))
	return 0
}

// list shows names in folders, with their kind.
func list(args []string) int {
	for _, dir := range args {
		entries, err := os.ReadDir(dir)
		if err != nil {
			return fail(err)
		}
		for _, e := range entries {
			info, err := e.Info()
			if err != nil {
				continue // a process that ended meanwhile
			}
			fmt.Println(dir+"/"+e.Name(), info.Mode())
		}
	}
	return 0
}

// write writes its second argument to the file of the first.
func write(args []string) int {
	if err := os.WriteFile(args[0], []byte(args[1]), 0o644); err != nil {
		return fail(err)
	}
	return 0
}

// eat takes megabytes of memory and holds them.
func eat(args []string) int {
	n, err := strconv.Atoi(args[0])
	if err != nil {
		return fail(err)
	}
	var held [][]byte
	for range n {
		b := make([]byte, 1<<20)
		for i := 0; i < len(b); i += 4096 {
			b[i] = 1
		}
		held = append(held, b)
	}
	fmt.Println("ate", len(held))
	return sleep(nil)
}

// serve answers HTTP.
func serve(args []string) int {
	err := http.ListenAndServe(args[0], http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(w, "hello")
	}))
	return fail(err)
}

// trap ends with 42 at the signal whose number is given.
func trap(args []string) int {
	n, err := strconv.Atoi(args[0])
	if err != nil {
		return fail(err)
	}
	got := make(chan os.Signal, 1)
	signal.Notify(got, syscall.Signal(n))
	fmt.Println("ready")
	<-got
	return 42
}

// fork leaves a child behind, which sleeps, and ends or sleeps as told.
func fork(args []string) int {
	p, err := os.StartProcess("/pod", []string{"pod", "sleep"}, &os.ProcAttr{Sys: &syscall.SysProcAttr{Setsid: true}})
	if err != nil {
		return fail(err)
	}
	fmt.Println("child", p.Pid)
	if args[0] == "stay" {
		return sleep(nil)
	}
	return 0
}

// crowd takes as many threads as told.
func crowd(args []string) int {
	n, err := strconv.Atoi(args[0])
	if err != nil {
		return fail(err)
	}
	ready := make(chan bool)
	for range n {
		go func() {
			runtime.LockOSThread()
			ready <- true
			select {}
		}()
		<-ready
	}
	return 0
}

// try makes a system call that a container should not be allowed and tells the answer.
func try(args []string) int {
	var err error
	switch args[0] {
	case "mount":
		err = syscall.Mount("none", "/tmp", "tmpfs", 0, "")
	case "unshare":
		err = syscall.Unshare(syscall.CLONE_NEWUSER)
	case "mknod":
		err = syscall.Mknod(args[1], syscall.S_IFBLK|0o600, 7<<8)
	case "open":
		var f *os.File
		if f, err = os.OpenFile(args[1], os.O_RDWR, 0); err == nil {
			f.Close()
		}
	case "chown":
		err = os.Chown(args[1], 1234, 1234)
	case "keyctl":
		if _, _, e := syscall.Syscall(250, 0, 0, 0); e != 0 {
			err = e
		}
	case "kill":
		var pid int
		if pid, err = strconv.Atoi(args[1]); err == nil {
			err = syscall.Kill(pid, 0)
		}
	}
	fmt.Println("answer:", err)
	return 0
}

// both writes to both outputs.
func both([]string) int {
	fmt.Fprintln(os.Stdout, "to stdout")
	fmt.Fprintln(os.Stderr, "to stderr")
	return 0
}

// ticks prints a number every 20 ms.
func ticks([]string) int {
	i := 0
	for range time.Tick(20 * time.Millisecond) {
		fmt.Println("tick", i)
		i++
	}
	return 0
}

// tty tells whether stdin is a terminal and its size, then echoes lines.
func tty([]string) int {
	report := func() {
		rows, cols, err := terminalSize(0)
		fmt.Println("terminal:", err == nil, cols, "x", rows)
	}
	changed := make(chan os.Signal, 1)
	signal.Notify(changed, syscall.SIGWINCH)
	report()
	go func() {
		for range changed {
			report()
		}
	}()
	for s := bufio.NewScanner(os.Stdin); s.Scan(); {
		if s.Text() == "quit" {
			return 7
		}
		fmt.Println("heard", s.Text())
	}
	return 0
}
