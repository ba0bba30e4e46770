package tally;

import sun.misc.Signal;

/** The two roles of the main job (see ../README.md): {@code feeder} writes the input, {@code processor} works on it. */
public final class Main {
    /** Exit code of a processor that must be started again: fenced, or in a state that it cannot leave by aborting. */
    static final int FATAL = 3;

    /** Set by SIGTERM, which is listened to before anything else: a process that has just started ends cleanly too. */
    static volatile boolean stopping;

    public static void main(String[] args) {
        Signal.handle(new Signal("TERM"), signal -> stopping = true);
        int status;
        try {
            var options = new Options(args);
            switch (options.role) {
                case "feeder" -> new Feeder(options).run();
                case "processor" -> new Processor(options).run();
                default -> throw new IllegalArgumentException("unknown role " + options.role);
            }
            status = 0;
        } catch (IllegalArgumentException e) {
            System.err.println(e.getMessage());
            status = 2;
        } catch (Exception e) {
            Log.line("fatal: " + e);
            e.printStackTrace();
            status = FATAL;
        }
        // Not a return: a client's own threads must not keep a failed process alive.
        System.exit(status);
    }
}
