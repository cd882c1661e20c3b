"""The commands: arguments and output. Nothing else imports from here."""
