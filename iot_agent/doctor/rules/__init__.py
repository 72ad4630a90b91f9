"""Pure judgement: facts in, findings out. The facts' form is declared beside the rules that judge them."""
