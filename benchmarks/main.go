// Benchmarks measures this library beside its peers.
package main

func main() {}
